from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.errors import OrbitError
from hpcfed.orbit import Header, pack_signs, public_name, unpack_signs
from tests.support.orbits import make


def test_round_trip_and_canonical_form():
    header = make(lr=1, train_only=[])
    assert Header.from_json(header.to_json()) == header
    assert Header.from_json(header.to_json().encode()) == header
    assert make(lr=1, train_only=()).to_json() == header.to_json()
    assert header.lr == 1.0 and isinstance(header.lr, float)


def test_header_does_not_follow_the_callers_dict():
    schedule = {"name": "constant", "warmup": 0, "rounds": 5, "final": 0.0}
    header = make(schedule=schedule)
    schedule["rounds"] = 6
    assert header.schedule["rounds"] == 5


@pytest.mark.parametrize(
    ("q", "payload", "size"), [(1, "signs", 1), (8, "signs", 1), (9, "signs", 2), (1, "floats", 4), (3, "floats", 12)]
)
def test_round_bytes(q, payload, size):
    assert make(directions=q, payload=payload).round_bytes == size


BAD = {
    "version": [0, 2, "1", True, 1.0, 10**400],
    "noise": [0, 2],
    "algorithm": ["", "Feed Sign", 3, None, "a" * 65, "../x"],
    "run_seed": [-1, 2**64, 1.5, "7", True],
    "directions": [0, -1, 2**21, 1.0],
    "lr": [0, 0.0, -1e-3, float("nan"), float("inf"), 10**400, "1e-3", True, None, [[1]]],
    "schedule": [
        None,
        {},
        "constant",
        {"name": "constant", "warmup": 0, "rounds": 5},
        {"name": "constant", "warmup": 0, "rounds": 5, "final": 0.0, "more": 1},
        {"name": "step", "warmup": 0, "rounds": 5, "final": 0.0},
        {"name": "constant", "warmup": -1, "rounds": 5, "final": 0.0},
        {"name": "constant", "warmup": 0, "rounds": 5.0, "final": 0.0},
        {"name": "constant", "warmup": 0, "rounds": 5, "final": float("nan")},
        {"name": "constant", "warmup": 0, "rounds": 5, "final": -1},
    ],
    "distribution": ["normal", None, 3, ["gaussian"]],
    "rounding": ["up"],
    "dtype": ["float64"],
    "base_model": ["", "/home/me/opt", "../opt", "~/", "a/b/c", "a//b", "C:\\opt", "a\nb", "\ud800", 5, "x" * 201],
    "base_fingerprint": ["", "f" * 31, "F" * 32, "g" * 32, "f" * 33, 5, "f" * 32 + "\n"],
    "layout_hash": ["0x" + "f" * 30, None],
    "train_only": ["classifier.*", [1], None, {"a": 1}, ["\ud800"]],
    "payload": ["bits", None],
    "kind": ["gan", ["causal-lm"]],
    "labels": ["ab", [1], ["\ud800"], {"a": 1}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_bad_field_names_itself(key, value):
    with pytest.raises(OrbitError, match=key):
        make(**{key: value})


def test_unknown_and_missing_keys():
    fields = dataclasses.asdict(make())
    with pytest.raises(OrbitError, match="did you mean run_seed"):
        Header.from_json(json.dumps({**fields, "runseed": 1}))
    with pytest.raises(OrbitError, match="version 2 is unknown to this hpcfed, which reads 1"):
        Header.from_json(json.dumps({**fields, "new": 1, "version": 2}))
    del fields["lr"], fields["payload"]
    with pytest.raises(OrbitError, match="lr, payload missing"):
        Header.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 900,
        b"[" * 100_000,
        b'{"lr":' + b"[" * 960 + b"]" * 960 + b"}",
        b'{"run_seed":' + b"9" * 5000 + b"}",
        b'{"a":1,"a":1}',
        b'{"lr":NaN}',
        b" " * (2**20 + 1),
        b'{"\\ud800":1}',
    ],
)
def test_bytes_that_are_no_header(text):
    with pytest.raises(OrbitError):
        Header.from_json(text)


@pytest.mark.parametrize("depth", range(900, 1000, 3))
def test_nesting_near_the_stack_limit(depth):
    fields = json.loads(make().to_json())
    for key in fields:
        text = json.dumps({**fields, key: "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)
        with pytest.raises(OrbitError):
            Header.from_json(text)


def test_same_content_in_another_form_is_refused():
    with pytest.raises(OrbitError, match="canonical"):
        Header.from_json(json.dumps(json.loads(make().to_json())))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from([f.name for f in dataclasses.fields(Header)]), value=json_values)
def test_any_value_loads_or_is_an_orbit_error(key, value):
    text = json.dumps({**json.loads(make().to_json()), key: value}, sort_keys=True, separators=(",", ":"))
    try:
        header = Header.from_json(text)
    except OrbitError:
        return
    assert header.to_json() == text


@given(st.lists(st.sampled_from([-1, 1]), min_size=1, max_size=40))
def test_signs_round_trip(signs):
    header = make(directions=len(signs))
    decision = pack_signs(np.array(signs))
    assert header.decision_problem(decision) is None
    back = unpack_signs(decision, len(signs))
    assert back.dtype == np.int8 and back.tolist() == signs


def test_sign_bits_known_answer():
    assert pack_signs(np.array([1, -1, -1, -1, -1, -1, -1, -1, 1])) == b"\x01\x01"


def test_decision_problem():
    assert "1 bytes" in (make(directions=9).decision_problem(b"\x00") or "")
    assert "beyond its 9" in (make(directions=9).decision_problem(b"\x00\x02") or "")
    assert make(directions=8).decision_problem(b"\xff") is None


def test_public_name_tells_no_machine_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "my opt"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert public_name("facebook/opt-125m") == "facebook/opt-125m"
    assert public_name(str(folder)) == "my opt"
    assert public_name(str(tmp_path / "gone" / "opt")) == "opt"
    assert public_name(".") == public_name("./") == public_name("../my opt") == "my opt"
    assert public_name("a/b/c") == "c"
    assert public_name("~/models/opt") == "opt"
    assert public_name("~no-such-user/models/opt") == "opt"
    (folder / "org" / "name").mkdir(parents=True)
    assert public_name("org/name") == "name"  # a folder that is there beats a hub name


@given(
    st.text(max_size=30) | st.text("a/.~", max_size=8) | st.sampled_from(["~nobody-here/x", "x" * 300, "a/" * 99, "/"])
)
def test_public_name_always_suits_a_header(name):
    assert make(base_model=public_name(name)).base_model
