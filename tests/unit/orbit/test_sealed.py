from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcfed.errors import OrbitError
from hpcfed.orbit import Journal, load, load_any, seal
from tests.support.folders import file_size
from tests.support.orbits import decisions_for, make, runs, write

FINGERPRINT = "00ff" * 8
relaxed = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(run=runs())
def test_round_trip_and_same_bytes(tmp_path, run):
    header, decisions = run
    path = tmp_path / "orbit.safetensors"
    assert seal(path, header, decisions, FINGERPRINT) == path.stat().st_size
    first = path.read_bytes()
    orbit = load(path)
    assert (orbit.header, orbit.decisions, orbit.rounds) == (header, decisions, len(decisions))
    assert orbit.fingerprint == FINGERPRINT
    seal(path, header, decisions, FINGERPRINT)
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["orbit.safetensors"]


def test_any_safetensors_reader_sees_the_votes(tmp_path):
    header = make(directions=3)
    seal(tmp_path / "o", header, [b"\x05", b"\x02", b"\x07"], FINGERPRINT)
    with safetensors.safe_open(tmp_path / "o", "numpy") as file:
        votes, metadata = file.get_tensor("votes"), file.metadata()
    bits = np.unpackbits(votes, bitorder="little", count=9).reshape(3, 3)
    assert bits.tolist() == [[1, 0, 1], [0, 1, 0], [1, 1, 1]]
    assert metadata["format"] == "hpcfed-orbit" and metadata["rounds"] == "3"
    assert metadata["fingerprint"] == FINGERPRINT and metadata["header"] == header.to_json()
    slopes = np.array([[1.5, -2], [0, 3]], "<f4")
    seal(tmp_path / "o", make(directions=2, payload="floats"), [row.tobytes() for row in slopes], FINGERPRINT)
    assert np.array_equal(safetensors.numpy.load_file(tmp_path / "o")["slopes"], slopes)


def test_ten_thousand_rounds_are_two_kilobytes(tmp_path):
    size = seal(tmp_path / "o", make(), [b"\1"] * 10_000, FINGERPRINT)
    assert 1250 < size < 1250 + 1024


def replace(path: Path, raw: bytes) -> None:
    """Like write_bytes, but quick: truncating a file that has data makes ext4 wait for the disk."""
    path.unlink()
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("q", "kind", "rounds"), [(1, "signs", 13), (3, "signs", 3), (2, "floats", 2), (1, "signs", 0)]
)
def test_every_flipped_byte_and_every_length_is_an_error(tmp_path, q, kind, rounds):
    header = make(directions=q, payload=kind)
    path = tmp_path / "o"
    seal(path, header, decisions_for(header, rounds), FINGERPRINT)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for flip in (0x01, 0x10, 0x20, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[at] ^= flip
            replace(path, damaged)
            with pytest.raises(OrbitError):
                load_any(path)
        replace(path, whole[:at])
        with pytest.raises(OrbitError):
            load_any(path)
    for more in (b"\0", b" ", whole):
        replace(path, whole + more)
        with pytest.raises(OrbitError):
            load(path)
    replace(path, whole)
    assert load(path).rounds == rounds


def test_messages_say_what_and_where(tmp_path):
    path = tmp_path / "o"
    seal(path, make(), decisions_for(make(), 20), FINGERPRINT)
    whole = path.read_bytes()

    def message(raw: bytes) -> str:
        path.write_bytes(raw)
        with pytest.raises(OrbitError) as error:
            load(path)
        assert str(error.value).startswith(str(path))
        return str(error.value)

    assert "truncated: 2 bytes" in message(whole[:-1])
    assert "truncated: ends at byte 100" in message(whole[:100])
    assert "too long" in message(whole + b"\0")
    assert "checksum" in message(whole[:-1] + b"\xf0")
    assert "not an orbit" in message(b"PK\3\4 some zip file of a stranger")
    assert "not an orbit" in message(b"")
    safetensors.numpy.save_file({"w": np.zeros(3)}, path)
    assert "a safetensors file, but not an orbit" in message(path.read_bytes())


def test_rewritten_by_another_tool_is_refused(tmp_path):
    path = tmp_path / "o"
    seal(path, make(), decisions_for(make(), 20), FINGERPRINT)
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    path.write_bytes((n + 8).to_bytes(8, "little") + raw[8 : 8 + n] + b" " * 8 + raw[8 + n :])
    assert len(safetensors.numpy.load_file(path)) == 1  # still a good safetensors file
    with pytest.raises(OrbitError, match="canonical form from byte 0"):
        load(path)


@relaxed
@given(head=st.sampled_from([b"", b"\2\0\0\0\0\0\0\0{}", b'\x14\0\0\0\0\0\0\0{"__metadata__":null}']), rest=st.binary())
def test_any_bytes_are_an_orbit_error(tmp_path, head, rest):
    (tmp_path / "o").write_bytes(head + rest)
    for reader in (load, load_any):
        with pytest.raises(OrbitError):
            reader(tmp_path / "o")


@pytest.mark.parametrize(
    "value", [None, 3, "", "\ud800", [], {}, "9" * 5000, "1e9", "\u0663", "f" * 31 + "\n", "{}", "[" * 5000]
)
@pytest.mark.parametrize(
    "key", ["format", "header", "rounds", "fingerprint", "checksum", "more", "votes", "__metadata__"]
)
def test_forged_metadata_is_an_orbit_error(tmp_path, key, value):
    path = tmp_path / "o"
    seal(path, make(), decisions_for(make(), 20), FINGERPRINT)
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8 : 8 + n])
    (table if key in table else table["__metadata__"])[key] = value
    text = json.dumps(table, separators=(",", ":")).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + n :])
    with pytest.raises(OrbitError) as error:
        load(path)
    str(error.value).encode()  # the message can be printed


@relaxed
@given(data=st.data())
def test_any_edit_is_an_orbit_error(tmp_path, data):
    header = make(directions=5)
    seal(tmp_path / "o", header, decisions_for(header, 4), FINGERPRINT)
    whole = (tmp_path / "o").read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    edited = whole[:start] + data.draw(st.binary(max_size=20)) + whole[end:]
    (tmp_path / "o").write_bytes(edited)
    if edited != whole:
        with pytest.raises(OrbitError):
            load(tmp_path / "o")


def test_full_disk_keeps_the_old_file_and_the_journal(tmp_path):
    path = tmp_path / "orbit.safetensors"
    seal(path, make(), [], FINGERPRINT)
    before = path.read_bytes()
    with file_size(300), pytest.raises(OrbitError, match="cannot write the orbit"):
        seal(path, make(), [b"\1"] * 99, FINGERPRINT)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["orbit.safetensors"]
    with pytest.raises(OrbitError, match="cannot write"):
        seal(tmp_path / "gone" / "o", make(), [], FINGERPRINT)


def test_run_folder_prefers_the_sealed_file_unless_the_journal_is_longer(tmp_path):
    header = make()
    decisions = decisions_for(header, 9)
    with pytest.raises(OrbitError, match="neither"):
        load_any(tmp_path)
    write(tmp_path / "journal", header, decisions)
    assert load_any(tmp_path).fingerprint is None
    seal(tmp_path / "orbit.safetensors", header, decisions, FINGERPRINT)
    assert load_any(tmp_path).fingerprint == FINGERPRINT
    with Journal.open(tmp_path / "journal") as journal:
        journal.append(9, b"\0")
    longer = load_any(tmp_path)
    assert longer.rounds == 10 and longer.fingerprint is None


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_that_kept_an_earlier_round_is_what_it_kept(tmp_path, schedule):
    """The journal is longer then, and so it is once the run has gone on: the planned rounds tell them apart."""
    header = make(schedule={"name": schedule, "warmup": 0, "rounds": 9, "final": 0.0}, task={"kept": "lowest loss"})
    decisions = decisions_for(header, 9)
    write(tmp_path / "journal", header, decisions)
    seal(tmp_path / "orbit.safetensors", header, decisions[:4], FINGERPRINT)
    kept = load_any(tmp_path)
    assert (kept.decisions, kept.fingerprint) == (decisions[:4], FINGERPRINT)
    assert load_any(tmp_path / "journal").rounds == 9
    sealed = (tmp_path / "orbit.safetensors").read_bytes()
    (tmp_path / "orbit.safetensors").write_bytes(sealed[:-1])
    with pytest.raises(OrbitError, match=r"truncated.*journal has all rounds, not only those that were kept"):
        load_any(tmp_path)
    (tmp_path / "orbit.safetensors").write_bytes(sealed)
    with Journal.open(tmp_path / "journal") as journal:
        journal.append(9, b"\0")
    on_its_way = load_any(tmp_path)
    assert on_its_way.rounds == 10 and on_its_way.fingerprint is None
    seal(tmp_path / "orbit.safetensors", header, [*decisions[:3], bytes([1 - decisions[3][0]])], FINGERPRINT)
    write(tmp_path / "journal", header, decisions)
    with pytest.raises(OrbitError, match="different runs"):
        load_any(tmp_path)


def test_run_folder_with_one_damaged_file_says_so(tmp_path):
    header = make()
    journal = write(tmp_path / "journal", header, decisions_for(header, 9))
    seal(tmp_path / "orbit.safetensors", header, decisions_for(header, 9), FINGERPRINT)
    sealed = (tmp_path / "orbit.safetensors").read_bytes()
    (tmp_path / "orbit.safetensors").write_bytes(sealed[:-1])
    orbit = load_any(tmp_path)
    assert orbit.path.name == "journal" and orbit.rounds == 9 and "truncated" in orbit.notes[0]
    (tmp_path / "journal").write_bytes(journal[:50])
    with pytest.raises(OrbitError, match=r"truncated.*header"):
        load_any(tmp_path)
    (tmp_path / "orbit.safetensors").write_bytes(sealed)
    assert load_any(tmp_path).fingerprint == FINGERPRINT
    (tmp_path / "journal").write_bytes(journal + b"torn")
    assert load_any(tmp_path).path.name == "orbit.safetensors"


def test_run_folder_with_files_of_two_runs(tmp_path):
    write(tmp_path / "journal", make(run_seed=8), decisions_for(make(), 9))
    seal(tmp_path / "orbit.safetensors", make(), decisions_for(make(), 9), FINGERPRINT)
    with pytest.raises(OrbitError, match="different runs"):
        load_any(tmp_path)


def test_orbits_are_read_without_torch():
    code = "import sys, hpcfed.orbit; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
