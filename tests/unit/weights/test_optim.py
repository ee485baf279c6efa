"""Every dense optimiser of torch.optim by name; what is wrong with one is said when it is made."""

from __future__ import annotations

import pytest
import torch

from hpcfed.errors import ConfigError
from hpcfed.weights.optim import make_optimizer, optimizers


def matrix(dtype=torch.float32) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(2, 3, dtype=dtype))


@pytest.mark.parametrize("name", sorted(optimizers()))
def test_every_optimizer_moves_a_matrix_as_torch_does(name):
    ours, theirs = matrix(), matrix()
    for p, optimizer in (
        (ours, make_optimizer(name, [ours], 0.1)),
        (theirs, getattr(torch.optim, name)([theirs], lr=0.1)),
    ):
        p.grad = torch.arange(6.0).view(2, 3)
        optimizer.step()
    assert torch.equal(ours, theirs) and not torch.equal(ours, matrix())


def test_options_reach_the_optimizer_and_lists_become_tuples():
    optimizer = make_optimizer("AdamW", [matrix()], 0.1, {"betas": [0.8, 0.9], "weight_decay": 0})
    assert optimizer.defaults["betas"] == (0.8, 0.9) and optimizer.defaults["weight_decay"] == 0
    assert optimizer.param_groups[0]["lr"] == 0.1 and not optimizer.state


def test_parameters_that_want_no_gradient_are_taken_and_stay_so():
    p = matrix(torch.bfloat16).requires_grad_(False)
    optimizer = make_optimizer("SGD", [p], 0.5, {"momentum": 0.9})
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert not p.requires_grad and p.tolist() == [[0.5] * 3] * 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Adamm", {}, "algorithm.optimizer='Adamm' is unknown; did you mean Adam?"),
        ("sgd", {}, "algorithm.optimizer='sgd' is unknown; did you mean SGD?"),
        ("Optimizer", {}, "is unknown"),
        ("lr_scheduler", {}, "is unknown"),
        ("LBFGS", {}, "evaluates the loss again"),
        ("SparseAdam", {}, "takes sparse gradients"),
        ("SGD", {"momentun": 0.9}, "algorithm.optimizer_options.momentun: .* did you mean momentum?"),
        ("SGD", {"lr": 0.9}, "the step size has a place: algorithm.lr"),
        ("SGD", {"params": 1}, "algorithm.optimizer_options.params"),
        ("SGD", {"momentum": -1.0}, "algorithm.optimizer_options=.*Invalid momentum"),
        ("SGD", {"momentum": "a"}, "algorithm.optimizer_options="),
        ("Adam", {"betas": 0.9}, "algorithm.optimizer_options="),
        ("Adam", {"betas": [0.9, 0.9, 0.9]}, "algorithm.optimizer_options="),  # torch finds it in the first step
        ("Adam", {"betas": [0.9]}, "algorithm.optimizer_options="),
        ("Adam", {"capturable": True}, "algorithm.optimizer_options="),
        ("SGD", {"differentiable": True}, "algorithm.optimizer_options="),
        ("SGD", {"fused": True, "foreach": True}, "algorithm.optimizer_options="),
    ],
)
def test_what_is_wrong_is_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(name, [matrix()], 0.1, options)


def test_an_optimizer_of_matrices_says_so():
    with pytest.raises(ConfigError, match=r"algorithm.optimizer='Muon' does not take these parameters"):
        make_optimizer("Muon", [matrix(), torch.nn.Parameter(torch.ones(3))], 0.1)
