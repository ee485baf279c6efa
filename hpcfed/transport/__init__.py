"""Ranks: who started them (launch.py), which of them is which row and shard (mesh.py), and how they talk.

    transport = choose(discover(), config.mesh.transport)       launch.py, choose.py
    with guard(transport):                                      guard.py: all ranks end when one cannot go on
        ...
    transport.close()

base.py says what rows may say to each other, wire.py what that looks like; solo.py, torchdist.py and mpi.py carry it.
row.py and shards.py are the ranks within a row, device.py where they compute; watch.py notices dead ranks.
"""
