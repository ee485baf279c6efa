"""The one thing that moves weights: in place, through an optimiser, and from the base model on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hpcfed.errors import ConfigError
from hpcfed.messages import Update
from hpcfed.noise import spec
from hpcfed.seeds import name_key
from hpcfed.weights import Mover, Weights, apply_
from tests.support.small import tiny_model

DTYPES = [(torch.float32, "nearest"), (torch.bfloat16, "stochastic"), (torch.float16, "nearest")]


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A layer of its own with an odd number of elements, and a tied one."""
    layers = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 5), nn.Linear(5, 5, bias=False))
    for i, p in enumerate(layers.parameters()):
        p.data = torch.from_numpy(spec.z(3, i, np.arange(p.numel(), dtype=np.uint64), "gaussian").copy()).view(p.shape)
    layers[2].weight = layers[1].weight
    return layers.to(dtype).requires_grad_(False)


def weights(dtype: torch.dtype = torch.float32) -> Weights:
    return Weights(model(dtype))


def bits(w: Weights) -> list[bytes]:
    return [p.data.view(torch.uint8).numpy().tobytes() for p in w.params.values()]


def updates(n: int, whole: bool = False) -> list[Update]:
    """Of 1, 2, 3 ... directions, each with a step size and a divisor of its own."""
    found = []
    for t in range(n):
        values = spec.z(t, 8, np.arange(t % 3 + 1, dtype=np.uint64), "gaussian").astype(np.float32)
        seeds = np.arange(10 * t, 10 * t + len(values), dtype=np.uint64)
        found.append(Update(seeds, values, 0.02 / (t + 1), t % 4 + 1, whole))
    return found


def z(seed: int, name: str, p: torch.Tensor, distribution: str = "gaussian") -> np.ndarray:
    return spec.z(int(seed), name_key(name), np.arange(p.numel(), dtype=np.uint64), distribution)


# --- in place --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "rounding"), DTYPES)
def test_one_call_is_many_calls(dtype: torch.dtype, rounding: str):
    at_once, one_by_one = weights(dtype), weights(dtype)
    Mover(at_once, "gaussian", rounding).apply(updates(9))
    mover = Mover(one_by_one, "gaussian", rounding)
    for update in updates(9):
        mover.apply([update])
    mover.apply([])
    assert bits(at_once) == bits(one_by_one) != bits(weights(dtype))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_many_updates_in_one_call_are_as_many_calls(dtype, rounding):
    one, many = tiny_model("roberta", dtype=dtype), tiny_model("roberta", dtype=dtype)
    updates = [Update(np.array([s, s + 100], np.uint64), np.array([1e-2, -1e-3], np.float32), 1.0) for s in range(5)]
    apply_(Weights(many), updates, "gaussian", rounding)
    for update in updates:
        apply_(Weights(one), [update], "gaussian", rounding)
    assert (
        Weights(one).fingerprint()
        == Weights(many).fingerprint()
        != Weights(tiny_model("roberta", dtype=dtype)).fingerprint()
    )


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_in_place_is_the_formula(distribution: str):
    w = weights()
    expected = {name: p.numpy().reshape(-1).copy() for name, p in w.params.items()}
    Mover(w, distribution, "nearest").apply(updates(5))
    for update in updates(5):
        for seed, value in zip(update.seeds, update.values, strict=True):
            c = value * np.float32(update.lr / update.divisor)
            for name, p in w.params.items():
                expected[name] = expected[name] - c * z(seed, name, p, distribution)
    for name, p in w.params.items():
        assert p.numpy().reshape(-1).tobytes() == expected[name].tobytes(), name


# --- through an optimiser --------------------------------------------------------------------------------------------

OPTIMISERS = [("SGD", {}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("Adam", {}), ("AdamW", {"betas": [0.5, 0.9]})]


@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
def test_an_optimiser_steps_along_the_directions(name: str, options: dict[str, Any]):
    """Against torch.optim in a loop of its own, whose gradients are made with NumPy."""
    w, other = weights(), weights()
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    oracle = getattr(torch.optim, name)(list(other.params.values()), lr=1.0, **given)
    mover = Mover(w, "gaussian", "nearest", (name, options))
    for update in updates(6):
        mover.apply([update])
        for key, p in other.params.items():
            g = sum(v / update.divisor * z(s, key, p) for s, v in zip(update.seeds, update.values, strict=True))
            p.grad = torch.from_numpy(np.asarray(g, np.float32).reshape(p.shape))
        for group in oracle.param_groups:
            group["lr"] = update.lr
        oracle.step()
        for key in w.params:
            torch.testing.assert_close(w.params[key].data, other.params[key].data, rtol=1e-5, atol=1e-5)
    assert bits(w) != bits(weights())


@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
def test_an_optimiser_in_one_call_is_many_calls(name: str, options: dict[str, Any]):
    """A resumed run replays its rounds at once, state of the optimiser included, and goes on."""
    straight, resumed = weights(), weights()
    mover = Mover(straight, "gaussian", "nearest", (name, options))
    for update in updates(7):
        mover.apply([update])
    again = Mover(resumed, "gaussian", "nearest", (name, options))
    again.apply(updates(7)[:4])
    again.apply(updates(7)[4:])
    assert bits(straight) == bits(resumed)


def test_plain_sgd_is_the_move_in_place():
    a, b = weights(), weights()
    Mover(a, "gaussian", "nearest", ("SGD", {})).apply(updates(6))
    Mover(b, "gaussian", "nearest").apply(updates(6))
    for name in a.params:
        torch.testing.assert_close(a.params[name].data, b.params[name].data, rtol=1e-6, atol=1e-6)


def test_no_gradient_is_kept_and_none_is_wanted():
    w = weights()
    mover = Mover(w, "gaussian", "nearest", ("Adam", {}))
    for update in updates(2):
        mover.apply([update])
        assert all(p.grad is None and not p.requires_grad for p in w.params.values())


def test_an_update_of_nothing_is_a_step_of_its_own():
    """All clients abstained along one direction: an optimiser still counts the round, in replay as in training."""
    nothing = Update(np.empty(0, np.uint64), np.empty(0, np.float32), 0.1)
    w = weights()
    Mover(w, "gaussian", "nearest").apply([nothing])
    assert bits(w) == bits(weights())
    Mover(w, "gaussian", "nearest", ("SGD", {"momentum": 0.9})).apply([updates(1)[0], nothing])
    once = weights()
    Mover(once, "gaussian", "nearest", ("SGD", {"momentum": 0.9})).apply([updates(1)[0]])
    assert bits(w) != bits(once)  # momentum goes on


def test_an_optimiser_that_is_none():
    with pytest.raises(ConfigError, match=r"algorithm\.optimizer='Adm' is unknown; did you mean Adam\?"):
        Mover(weights(), "gaussian", "nearest", ("Adm", {}))


# --- from the base model on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "rounding"), DTYPES)
def test_whole_updates_start_from_the_base(dtype: torch.dtype, rounding: str):
    """Each stands alone: what came before it, and how often, leaves no trace."""
    w = weights(dtype)
    mover, found = Mover(w, "gaussian", rounding), []
    for update in updates(4, whole=True):
        mover.apply([update])
        found.append(bits(w))
    mover.apply(updates(4, whole=True)[:2])  # of several the last counts
    assert bits(w) == found[1]
    for update, expected in zip(updates(4, whole=True), found, strict=True):
        for last in (True, False):
            fresh = weights(dtype)
            Mover(fresh, "gaussian", rounding, last=last).apply([update])
            assert bits(fresh) == expected
    zeros = Update(np.arange(3, dtype=np.uint64), np.zeros(3, np.float32), 0.1, whole=True)
    mover.apply([zeros])
    assert bits(w) == bits(weights(dtype))


def test_a_whole_update_is_rounded_once():
    """w_0 - sum_j c_j z_j in float32, then to bfloat16: steps far below half its spacing add up."""
    many = Update(np.full(64, 5, np.uint64), np.full(64, 1.0, np.float32), 2e-5, whole=True)
    w = weights(torch.bfloat16)
    Mover(w, "gaussian", "nearest").apply([many])
    for name, p in weights(torch.bfloat16).params.items():
        start = p.float().numpy().reshape(-1)
        expected = torch.from_numpy(start - np.float32(64 * 2e-5) * z(5, name, p)).to(torch.bfloat16)
        step = (w.params[name].float() - expected.view_as(p).float()).abs()
        assert (step <= 2**-7 * p.float().abs()).all()  # at most a neighbour, where float32 sums differ
        assert (w.params[name].view(-1) == expected).float().mean() > 0.9
    stepwise = weights(torch.bfloat16)
    Mover(stepwise, "gaussian", "nearest").apply([Update(many.seeds, many.values, many.lr)])
    assert changed(w) > 2 * changed(stepwise)  # step by step most are lost


def changed(w: Weights) -> int:
    """Elements that are not the base model's."""
    base = weights(torch.bfloat16).params
    return sum(int((p != base[name]).sum()) for name, p in w.params.items())


def test_the_base_waits_in_a_file_without_a_name(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mover = Mover(weights(), "gaussian", "nearest")
    for update in updates(3, whole=True):
        mover.apply([update])
        assert list(tmp_path.iterdir()) == []


def test_one_parameter_of_the_model_may_be_all_that_moves():
    w = Weights(model(), ["0.*"])
    before = bits(Weights(model(), ["1.*"]))
    m = model()
    w = Weights(m, ["0.*"])
    Mover(w, "gaussian", "nearest", ("Adam", {})).apply(updates(2))
    Mover(w, "gaussian", "nearest").apply(updates(2, whole=True))
    assert bits(Weights(m, ["1.*"])) == before and bits(w) != bits(Weights(model(), ["0.*"]))
