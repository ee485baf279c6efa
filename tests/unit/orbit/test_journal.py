from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcfed.errors import OrbitError
from hpcfed.orbit import Journal, load_any, read_journal
from tests.support.folders import file_size
from tests.support.orbits import decisions_for, make, runs, write

relaxed = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(run=runs(), sync=st.sampled_from([0, 1.0]))
def test_round_trip(tmp_path, run, sync):
    header, decisions = run
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    with Journal.create(path, header, sync) as journal:
        for t, decision in enumerate(decisions):
            journal.append(t, decision)
        assert journal.rounds == len(decisions)
        assert read_journal(path) == (header, decisions, None)  # before close: a reader sees every round
    with Journal.open(path) as journal:
        assert (journal.header, journal.decisions, journal.repaired) == (header, decisions, None)


@relaxed
@given(run=runs(), data=st.data())
def test_death_at_any_byte_keeps_the_prefix_and_goes_on(tmp_path, run, data):
    header, decisions = run
    path = tmp_path / "journal"
    whole = write(path, header, decisions)
    start = len(whole) - len(decisions) * (12 + header.round_bytes)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    if cut < start:
        with pytest.raises(OrbitError, match=r"header|not a journal"):
            Journal.open(path)
        return
    kept, torn = divmod(cut - start, 12 + header.round_bytes)
    assert read_journal(path)[1] == decisions[:kept]
    assert path.stat().st_size == cut  # reading repairs nothing
    with Journal.open(path) as journal:
        assert journal.decisions == decisions[:kept]
        assert (journal.repaired is not None) == (torn > 0)
        if torn:
            assert f"{torn} bytes" in journal.repaired
        for t in range(kept, len(decisions)):
            journal.append(t, decisions[t])
    assert path.read_bytes() == whole


@relaxed
@given(run=runs(), tail=st.binary(min_size=1, max_size=60) | st.integers(1, 5000).map(bytes))
def test_rubbish_or_zeros_at_the_end_are_a_torn_tail(tmp_path, run, tail):
    header, decisions = run
    path = tmp_path / "journal"
    whole = write(path, header, decisions)
    path.write_bytes(whole + tail)
    with Journal.open(path) as journal:
        assert journal.decisions == decisions
        assert f"{len(tail)} bytes" in (journal.repaired or "")
    assert path.read_bytes() == whole


def test_every_flipped_byte_is_an_error_or_a_shorter_prefix(tmp_path):
    header = make(directions=9)
    decisions = decisions_for(header, 5)
    path = tmp_path / "journal"
    whole = write(path, header, decisions)
    size = 12 + header.round_bytes
    last = len(whole) - size
    for at in range(len(whole)):
        for flip in (0x01, 0x20, 0xFF):
            damaged = bytearray(whole)
            damaged[at] ^= flip
            path.write_bytes(damaged)
            if at >= last:
                assert read_journal(path)[1] == decisions[:4]
                continue
            with pytest.raises(OrbitError) as error:
                Journal.open(path)
            assert path.read_bytes() == damaged  # damage is reported, never cut away
            if at >= last - 4 * size:
                k = 4 - (last - at + size - 1) // size
                assert f"record {k} " in str(error.value)
                assert k == 0 or f"rounds 0..{k - 1} are intact" in str(error.value)


def test_bytes_lost_added_or_swapped_in_the_middle_are_no_torn_tail(tmp_path):
    header = make()
    path = tmp_path / "journal"
    whole = write(path, header, decisions_for(header, 20))
    start = len(whole) - 20 * 13
    record = [whole[start + 13 * i : start + 13 * (i + 1)] for i in range(20)]
    for damaged in (
        whole[: start + 50] + whole[start + 51 :],
        whole[: start + 50] + b"\0" + whole[start + 50 :],
        whole[:start] + b"".join(record[:3] + record[4:]),  # a round is missing
        whole[:start] + b"".join([*record[:3], record[4], record[3], *record[5:]]),
        whole + record[19],  # a round twice
        whole[:start] + whole[start + 1 :],
        whole[: start + 13 * 4] + bytes(13 * 2) + whole[start + 13 * 6 :],  # a lost block
    ):
        path.write_bytes(damaged)
        with pytest.raises(OrbitError, match="record"):
            Journal.open(path)
        assert path.read_bytes() == damaged


def test_the_cure_in_the_message_works(tmp_path):
    header = make()
    path = tmp_path / "journal"
    whole = bytearray(write(path, header, decisions_for(header, 9)))
    whole[-13 * 4] ^= 1
    path.write_bytes(whole)
    with pytest.raises(OrbitError, match=r"head -c (\d+) JOURNAL") as error:
        read_journal(path)
    kept = int(str(error.value).split("head -c ")[1].split()[0])
    path.write_bytes(whole[:kept])
    assert read_journal(path) == (header, decisions_for(header, 9)[:5], None)


def test_a_record_of_another_run_is_not_taken(tmp_path):
    mine = write(tmp_path / "a", make(), decisions_for(make(), 3))
    other = write(tmp_path / "b", make(run_seed=8), decisions_for(make(), 4))
    (tmp_path / "a").write_bytes(mine + other[-13:])
    _, decisions, repaired = read_journal(tmp_path / "a")
    assert len(decisions) == 3 and repaired


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.sampled_from([b"", b"hpcfedJ1", b"hpcfedJ1\x05\0\0\0", b"hpcfedJ1\xff\xff\xff\xff"]), rest=st.binary())
def test_any_bytes_are_an_orbit_error(tmp_path, head, rest):
    path = tmp_path / "journal"
    path.write_bytes(head + rest)
    for reader in (read_journal, Journal.open, load_any):
        with pytest.raises(OrbitError):
            reader(path)


def test_wrong_kinds_of_path(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**40)
    for name in ("gone", "pipe", "huge", "", "gone/below", "a\0b"):
        with pytest.raises(OrbitError):
            read_journal(tmp_path / name)


def test_create_refuses_what_exists_and_bad_folders(tmp_path):
    path = tmp_path / "journal"
    before = write(path, make(), [])
    for bad, message in ((path, "--force"), (tmp_path / "gone" / "journal", "cannot create"), (path / "x", "cannot")):
        with pytest.raises(OrbitError, match=message):
            Journal.create(bad, make())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["journal"]


def test_append_checks_its_caller(tmp_path):
    with Journal.create(tmp_path / "journal", make(directions=9)) as journal:
        for t, decision in ((1, b"\0\0"), (0, b"\0"), (0, b"\0\xff")):
            with pytest.raises(AssertionError):
                journal.append(t, decision)
        journal.append(0, b"\0\0")
    journal.close()
    assert journal.rounds == 1


@pytest.mark.parametrize("room", range(0, 26, 3))
def test_full_disk_leaves_a_valid_journal(tmp_path, room):
    """A file size limit makes write() come back short, then fail: what a full disk does, without root."""
    header, path = make(), tmp_path / "journal"
    decisions = decisions_for(header, 6)
    journal = Journal.create(path, header)
    for t in range(2):
        journal.append(t, decisions[t])
    with file_size(path.stat().st_size + room), pytest.raises(OrbitError, match="cannot write round") as error:
        for t in range(2, 6):
            journal.append(t, decisions[t])
    kept = 2 + room // 13
    assert journal.rounds == kept
    assert str(path) in str(error.value) and "free some space" in str(error.value)
    assert f"rounds 0..{kept - 1} are safe" in str(error.value)
    assert read_journal(path) == (header, decisions[:kept], None)
    for t in range(kept, 6):  # space is back
        journal.append(t, decisions[t])
    journal.close()
    assert read_journal(path) == (header, decisions, None)


def test_full_disk_at_creation(tmp_path):
    with file_size(100), pytest.raises(OrbitError, match="free some space"):
        Journal.create(tmp_path / "journal", make())
    assert [file.name for file in tmp_path.iterdir()] == []


def test_full_device(tmp_path):
    """The kernel's own ENOSPC."""
    (tmp_path / "journal").symlink_to("/dev/full")
    with pytest.raises(OrbitError, match="not a file"):
        Journal.open(tmp_path / "journal")
    path = tmp_path / "real"
    journal = Journal.create(path, make())
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._fd)
    os.close(full)
    with pytest.raises(OrbitError, match=r"No space left on device.*free some space"):
        journal.append(0, b"\0")
    assert journal.rounds == 0
    assert read_journal(path)[1] == []


def test_kill_9_loses_nothing_that_append_returned_from(tmp_path):
    script = textwrap.dedent("""
        import sys
        from hpcfed.orbit import Journal
        from tests.support.orbits import make
        journal = Journal.create(sys.argv[1], make(), sync_seconds=100)
        for t in range(10**9):
            journal.append(t, bytes([t % 3 == 0]))
            print(t, flush=True)
    """)
    path = tmp_path / "journal"
    command = [sys.executable, "-c", script, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert child.stdout is not None
    for _ in range(500):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    done = 500 + len(child.stdout.read().split("\n")) - 1
    assert child.wait() == -signal.SIGKILL
    with Journal.open(path) as journal:
        assert done <= journal.rounds <= done + 1
        assert journal.decisions == [bytes([t % 3 == 0]) for t in range(journal.rounds)]
        journal.append(journal.rounds, b"\0")
