"""Small orbits: a header, its decisions, a journal of them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from hpcfed.orbit import Header, Journal


def make(**changes: object) -> Header:
    """A header of FeedSign, with changes."""
    fields: dict = {
        "algorithm": "feedsign",
        "run_seed": 7,
        "directions": 1,
        "lr": 5e-6,
        "schedule": {"name": "cosine", "warmup": 10, "rounds": 100, "final": 0.0},
        "distribution": "gaussian",
        "rounding": "stochastic",
        "dtype": "bfloat16",
        "base_model": "facebook/opt-125m",
        "base_fingerprint": "0123456789abcdef" * 2,
        "layout_hash": "f" * 32,
        "train_only": ["classifier.*"],
        "payload": "signs",
        "kind": "sequence-classification",
        "labels": ["negative", "positive"],
    }
    return Header(**{**fields, **changes})


def write(path: Path, header: Header, decisions: list[bytes]) -> bytes:
    """A journal with these decisions; its bytes."""
    path.unlink(missing_ok=True)
    with Journal.create(path, header, sync_seconds=100) as journal:
        for t, decision in enumerate(decisions):
            journal.append(t, decision)
    return path.read_bytes()


def decisions_for(header: Header, rounds: int) -> list[bytes]:
    """Payloads of the right size, each of its own."""
    return [bytes([(37 * t + i) % 2 for i in range(header.round_bytes)]) for t in range(rounds)]


@st.composite
def runs(draw: st.DrawFn) -> tuple[Header, list[bytes]]:
    """Any header and its decisions."""
    kind = draw(st.sampled_from(["signs", "floats"]))
    q = draw(st.integers(1, 20))
    header = make(directions=q, payload=kind)
    one = st.binary(min_size=header.round_bytes, max_size=header.round_bytes)
    if kind == "signs":
        one = st.integers(0, 2**q - 1).map(lambda bits: bits.to_bytes(header.round_bytes, "little"))
    return header, draw(st.lists(one, max_size=12))
