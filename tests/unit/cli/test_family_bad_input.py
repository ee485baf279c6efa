"""Bad input that the family of methods can be given: one sentence that names the setting and the cure."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcfed.errors import OrbitError
from hpcfed.orbit import Header, load, seal
from hpcfed.train.replay import replay_into
from hpcfed.weights import Weights
from tests.support.command import ok, refused, settings
from tests.support.orbits import make

FIVE = {"clients__count": 5}
PRIVATE = {"privacy__mechanism": "central", "privacy__epsilon": 1}
OPTIMISED = {"a__update": "optimizer"}


def trained(out: Path, **values: Any) -> list[Any]:
    """The command; a__ stands for algorithm__."""
    given = {re.sub("^a__", "algorithm__", key): value for key, value in values.items()}
    return ["train", "digits", *settings(**{"rounds": 2, "clients__batch": 8} | given), "--out", out]


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"a__name": "fedkseed-por"}, ["algorithm.name='fedkseed-por'", "did you mean fedkseed-pro?"]),
        ({"a__name": "zofedsgd"}, ["algorithm.name='zofedsgd'", "did you mean zo-fedsgd?"]),
        ({"a__name": "fedkseed", "a__pool_size": 0}, ["algorithm.pool_size=0", "greater than or equal to 1"]),
        ({"a__name": "fedkseed", "a__pool_size": 2**30}, ["algorithm.pool_size=1073741824", "262144"]),
        ({"a__name": "zo-fedavg", "a__local_steps": 0}, ["algorithm.local_steps=0", "1"]),
        ({"a__name": "zo-fedavg", "a__local_steps": "epochs"}, ["algorithm.local_steps='epochs'", "'epoch'"]),
        ({"a__name": "fedkseed", "a__local_steps": "epoch"}, ["algorithm.local_steps=", "number"]),
        ({"a__name": "zo-fedavg", "a__walk_copy": "disk"}, ["algorithm.walk_copy='disk'", "'device' or 'host'"]),
        ({"a__name": "zo-fedavg", "a__directions": 2}, ["algorithm.directions=2", "zo-fedavg", "feedsign"]),
        ({"a__directions": 65}, ["algorithm.directions=65", "64"]),
        ({"a__name": "fedavg", "a__directions": 2}, ["algorithm.directions=2", "fedavg has no such setting"]),
        ({"a__local_steps": 5}, ["algorithm.local_steps=5", "feedsign has no such setting", "zo-fedavg"]),
        ({"a__name": "mezo", "a__ballot": "bits"}, ["algorithm.ballot='bits'", "mezo has no such setting"]),
        ({"a__pool_size": 7}, ["algorithm.pool_size=7", "fedkseed"]),
        ({"a__name": "zo-fedsgd", "a__tally": "median"}, ["algorithm.tally='median'", 'algorithm.seeds="shared"']),
        ({"a__name": "zo-fedsgd", "a__trim": 0.5}, ["algorithm.trim=0.5", "less than 0.5"]),
        ({"a__name": "fedkseed-pro", "a__history_clip": 0}, ["algorithm.history_clip=0", "greater than 0"]),
        ({"a__name": "fedavg", "a__local_epochs": 0}, ["algorithm.local_epochs=0"]),
        ({"save_every": 0}, ["save_every=0"]),
        ({"clients__slope_noise": -1}, ["clients.slope_noise=-1"]),
        # optimisers
        ({"a__optimizer": "Adam"}, ["algorithm.optimizer", 'algorithm.update="optimizer"']),
        (OPTIMISED | {"a__optimizer": "Adm"}, ["algorithm.optimizer='Adm'", "did you mean Adam?"]),
        (OPTIMISED | {"a__optimizer": "LBFGS"}, ["algorithm.optimizer='LBFGS'", "use one of"]),
        (OPTIMISED | {"a__optimizer_options.momentun": 0.9}, ["momentun", "did you mean momentum?"]),
        (OPTIMISED | {"a__optimizer_options.momentum": -1}, ["algorithm.optimizer_options=", "momentum"]),
        (OPTIMISED | {"a__optimizer_options.lr": 1}, ["algorithm.optimizer_options.lr", "algorithm.lr"]),
        (OPTIMISED | {"a__optimizer_options": 3}, ["algorithm.optimizer_options=3"]),
        (OPTIMISED | {"model__dtype": "bfloat16"}, ['update="optimizer"', "bfloat16", 'model.dtype="float32"']),
        (OPTIMISED | {"a__name": "zo-fedavg"}, ["algorithm.update='optimizer'", "zo-fedavg has no such setting"]),
        ({"a__name": "fedavg", "a__optimizer": "LBFGS"}, ["algorithm.optimizer='LBFGS'"]),
        ({"a__name": "fedavg", "a__optimizer_options.betas": "x"}, ["optimizer_options", "betas"]),
        # attackers
        (FIVE | {"attack__kind": "revers"}, ["attack.kind='revers'", "'reverse'"]),
        (FIVE | {"attack__kind": "reverse", "attack__clients": "[7]"}, ["clients=[7]", "clients.count=5", "0..4"]),
        (FIVE | {"attack__kind": "reverse", "attack__clients": "[1, 1]"}, ["attack.clients=[1, 1]", "once"]),
        (FIVE | {"attack__kind": "reverse", "attack__clients": "[]"}, ["attack.clients=[]", "at least one"]),
        (FIVE | {"attack__kind": "reverse", "attack__clients": 0}, ["attack.clients=0", "1..5"]),
        (FIVE | {"attack__kind": "reverse", "attack__clients": 6}, ["attack.clients=6", "1..5"]),
        (FIVE | {"attack__kind": "reverse", "attack__clients": 1.5}, ["attack.clients=1.5", "(0, 1]"]),
        (FIVE | {"attack__kind": "reverse", "attack__clients": "all"}, ["attack.clients='all'"]),
        (FIVE | {"attack__kind": "random", "attack__scale": 0}, ["attack.scale=0", "greater than 0"]),
        ({"a__name": "mezo", "attack__kind": "reverse"}, ['attack.kind="reverse"', "mezo"]),
        ({"a__name": "fedavg", "attack__kind": "collude"}, ['attack.kind="collude"', "fedavg"]),
        # rows of several ranks
        ({"a__name": "fedsgd", "mesh__shards": 2}, ["mesh.shards=2", "fedsgd needs gradients", "mesh.shards=1"]),
        ({"a__name": "fedavg", "mesh__shards": 2}, ["mesh.shards=2", "fedavg needs gradients", "mesh.shards=1"]),
        ({"mesh__shards": 2}, ["mesh.shards=2", "does not divide the 1 rank", "use one of [1]"]),
        # privacy
        ({"privacy__mechanism": "central"}, ["privacy.epsilon"]),
        ({"privacy__epsilon": 1}, ['privacy.mechanism="none"', "central"]),
        ({"privacy__budget": 1}, ['privacy.mechanism="none"', "central"]),
        (PRIVATE | {"privacy__epsilon": 0}, ["privacy.epsilon=0", "greater than 0"]),
        (PRIVATE | {"privacy__epsilon": -1}, ["privacy.epsilon=-1", "greater than 0"]),
        (PRIVATE | {"privacy__epsilon": 51}, ["privacy.epsilon=51", "50"]),
        (PRIVATE | {"privacy__epsilon": "inf"}, ["privacy.epsilon=inf", "finite"]),
        (PRIVATE | {"privacy__delta": 0}, ["privacy.delta=0", "greater than 0"]),
        (PRIVATE | {"privacy__delta": 1}, ["privacy.delta=1", "less than 1"]),
        (PRIVATE | {"privacy__budget": 0}, ["privacy.budget=0", "greater than 0"]),
        (PRIVATE | {"privacy__budget": 0.5}, ["privacy.budget=0.5", "privacy.epsilon"]),
        (PRIVATE | {"a__name": "zo-fedsgd"}, ['privacy.mechanism="central"', "only feedsign votes"]),
        (PRIVATE | {"a__name": "fedsgd"}, ['privacy.mechanism="central"', "only feedsign votes"]),
        (PRIVATE | {"a__ballot": "bits"}, ['privacy.mechanism="central"', 'algorithm.ballot="bits"']),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_setting(tmp_path: Path, values: dict[str, Any], parts: list[str]):
    said = refused(*trained(tmp_path / "run", **values))
    assert all(part in said for part in parts) and "\n" not in said, said
    left = {file.name for file in (tmp_path / "run").iterdir()} if (tmp_path / "run").exists() else set()
    assert not left & {"journal", "summary.json", "orbit.safetensors", "weights.safetensors"}, left


# --- a run without an orbit ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of FedAvg."""
    out = tmp_path_factory.mktemp("dense") / "run"
    ok(*trained(out, algorithm__name="fedavg", clients__batch=64), "--quiet")
    return out


def test_a_dense_run_has_no_orbit(tmp_path: Path, dense: Path):
    commands = (
        ["orbit", "show", dense],
        ["orbit", "verify", dense],
        ["orbit", "verify", dense, "--base", "digits-vit"],
        ["orbit", "replay", dense, "--base", "digits-vit", "--out", tmp_path / "model"],
    )
    for argv in commands:
        said = refused(*argv)
        assert f"{dense}: a run without an orbit" in said and "weights.safetensors" in said, argv
    assert not (tmp_path / "model").exists()
    said = refused("orbit", "show", dense / "weights.safetensors")
    assert "not an orbit" in said


def test_a_dense_run_is_evaluated_from_its_weights(dense: Path):
    summary = json.loads((dense / "summary.json").read_text())
    assert summary["loss_after"] != summary["loss_before"]
    for argv in (["evaluate", dense], ["evaluate", "digits", "--orbit", dense]):
        assert re.findall(r"\d+\.\d{4}", ok(*argv).out) == [f"{summary['loss_after']:.4f}"]


def test_damaged_weights_are_not_gone_on_with(tmp_path: Path, dense: Path):
    out = tmp_path / "run"
    out.mkdir()
    for file in dense.iterdir():
        if file.name != "summary.json":
            (out / file.name).write_bytes(file.read_bytes())
    raw = bytearray((dense / "weights.safetensors").read_bytes())
    raw[-9] ^= 1
    (out / "weights.safetensors").write_bytes(raw)
    more = {"a__name": "fedavg", "clients__batch": 64}
    assert "weights.safetensors" in refused(*trained(out, **more), "--resume")
    assert (out / "weights.safetensors").read_bytes() == raw


# --- orbits of strangers ---------------------------------------------------------------------------------------------


def header(algorithm: str, width: int, **changes: Any) -> Header:
    """A true header of that algorithm: two clients."""
    right = {
        "zo-fedsgd": {"cohort": 2, "seeds": "own", "tally": "mean", "trim": 0.2},
        "zo-fedavg": {"cohort": 2, "steps": width // 2, "batches": "step"},
        "mezo": {},
        "fedkseed": {"cohort": 2, "pool": width, "steps": 3},
        "fedkseed-pro": {"cohort": 2, "pool": width // 3, "steps": 3, "clip": 9.0},
        "feedsign": {},
    }[algorithm]
    payload = "signs" if algorithm == "feedsign" else "floats"
    sized = {} if algorithm in ("feedsign", "mezo") else {"width": width}
    dtype = {"dtype": "float32", "rounding": "nearest"}
    return make(algorithm=algorithm, directions=1, payload=payload, settings=right | sized, **dtype, **changes)


def stranger(tmp_path: Path, header: Header) -> str:
    """What replay says about a sealed orbit with this header."""
    file = tmp_path / "orbit.safetensors"
    seal(file, header, [b"\0" * header.round_bytes] * 2, "0" * 32)
    orbit = load(file)
    weights = Weights(torch.nn.Linear(3, 2))
    before = weights.fingerprint()
    with pytest.raises(OrbitError) as caught:
        replay_into(orbit.header, orbit.decisions, weights)
    assert weights.fingerprint() == before and "\n" not in str(caught.value)
    return str(caught.value)


NONSENSE: list[Any] = [2**40, -1, 0, 2.5, True, "many", [1, 2], {"a": 1}]
SIZES = [
    ("zo-fedsgd", 2, "cohort"), ("zo-fedavg", 6, "cohort"), ("zo-fedavg", 6, "steps"),
    ("fedkseed", 8, "pool"), ("fedkseed-pro", 24, "pool"),
]  # fmt: skip


def test_true_headers_replay():
    for algorithm, width in (*((a, w) for a, w, _ in SIZES), ("mezo", 1), ("feedsign", 1)):
        h = header(algorithm, width)
        replay_into(h, [b"\0" * h.round_bytes] * 2, Weights(torch.nn.Linear(3, 2)))


@pytest.mark.parametrize(("algorithm", "width", "key"), SIZES)
@pytest.mark.parametrize("value", NONSENSE, ids=str)
def test_a_size_that_cannot_be(tmp_path: Path, algorithm: str, width: int, key: str, value: Any):
    h = header(algorithm, width)
    said = stranger(tmp_path, replace(h, settings={**h.settings, key: value}))
    assert algorithm in said


@pytest.mark.parametrize(("algorithm", "width", "key"), SIZES)
def test_a_setting_that_is_missing(tmp_path: Path, algorithm: str, width: int, key: str):
    h = header(algorithm, width)
    said = stranger(tmp_path, replace(h, settings={k: v for k, v in h.settings.items() if k != key}))
    assert algorithm in said and key in said


def test_other_headers_that_cannot_be(tmp_path: Path):
    own = header("zo-fedsgd", 2)
    for changed in (
        replace(own, algorithm="fedsgd"),
        replace(own, algorithm="nothing"),
        replace(own, algorithm="fedkseed"),
        replace(own, settings={**own.settings, "seeds": "shared"}),  # then a round is one float
        replace(own, settings={**own.settings, "seeds": 5}),
        replace(own, directions=7),
        replace(header("mezo", 1), payload="signs"),
        replace(header("feedsign", 1), payload="floats"),
        replace(header("mezo", 1), settings={"width": 3}),
    ):
        stranger(tmp_path, changed)


@pytest.mark.parametrize(
    "told",
    [
        {"optimizer": "LBFGS"},
        {"optimizer": "Adm"},
        {"optimizer": "__class__"},
        {"optimizer": ["SGD"]},
        {"optimizer": 3},
        {"optimizer": "SGD", "optimizer_options": 5},
        {"optimizer": "SGD", "optimizer_options": "momentum"},
        {"optimizer": "SGD", "optimizer_options": ["momentum"]},
        {"optimizer": "SGD", "optimizer_options": {"momentum": "much"}},
        {"optimizer": "SGD", "optimizer_options": {"momentum": [1, 2]}},
        {"optimizer": "SGD", "optimizer_options": {"differentiable": 7, "foreach": "x"}},
        {"optimizer": "Adam", "optimizer_options": {"betas": 0.9}},
        {"optimizer": "Adam", "optimizer_options": {"betas": [0.9]}},
        {"optimizer": "Adam", "optimizer_options": {"betas": ["a", "b"]}},
        {"optimizer": "SGD", "optimizer_options": {"lr": 3}},
    ],
    ids=str,
)
def test_an_optimiser_that_cannot_be(tmp_path: Path, told: dict[str, Any]):
    stranger(tmp_path, replace(header("feedsign", 1), settings=told))


def test_floats_that_no_run_writes(tmp_path: Path):
    """Infinities and NaN in a stranger's decision move nothing and crash nothing."""
    for algorithm, width, _ in SIZES:
        h = header(algorithm, width)
        for bits in (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\xff\xff\xff\xff"):
            weights = Weights(torch.nn.Linear(3, 2))
            before = weights.fingerprint()
            replay_into(h, [bits * h.width] * 2, weights)
            assert weights.fingerprint() == before, (algorithm, bits)
