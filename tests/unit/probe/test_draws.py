"""w + mu z and w - mu z have the specification's bits: whole, in blocks or row by row, of both sides or of one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpcfed.clock import FORWARD, UPDATE, Clock
from hpcfed.noise import spec
from hpcfed.probe import draws
from hpcfed.probe.draws import Draws, Pass
from hpcfed.probe.owners import Owner, find_sites, make_owners
from hpcfed.weights import Weights
from tests.support.noise import bits_of, tensor_bits

SEED, MU = 5, 0.02
SIDES = [(0, [MU, -MU]), (1, [MU]), (-1, [-MU])]  # which side runs, and what each half is moved by


class Net(nn.Module):
    """A table, and layers with and without a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.wide, self.last = nn.Embedding(30, 6), nn.Linear(6, 50), nn.Linear(50, 3, bias=False)
        self.requires_grad_(False)


def owner_of(path: str) -> Owner:
    model = Net()
    owners = make_owners(find_sites(model, Weights(model)), dict(model.named_modules()))
    return next(owner for owner in owners if owner.module is model.get_submodule(path))


def moved(w: Tensor, owner: Owner, attribute: str, mu: float) -> np.ndarray:
    """Oracle: all of w + mu z."""
    piece = next(site.piece for site in owner.sites if site.attribute == attribute)
    up, _ = spec.perturb(w.numpy().reshape(-1), SEED, mu, piece, "gaussian", "float32")
    return up.reshape(w.shape)


def same(t: Tensor, expected: np.ndarray) -> bool:
    return np.array_equal(tensor_bits(t), bits_of(expected))


@pytest.mark.parametrize(("side", "mus"), SIDES)
@pytest.mark.parametrize("block", [1, 40, 64, 2**22])
def test_blocks_of_a_layer_together_are_the_whole_layer(monkeypatch, block, side, mus):
    monkeypatch.setattr(draws, "BLOCK", {"cpu": block})
    owner, drawing, p = owner_of("wide"), Draws("gaussian", Clock()), Pass(SEED, MU, side=side)
    weight, bias = owner.module.weight, owner.module.bias
    sites = {site.attribute: site for site in owner.sites}
    step = drawing.step(weight)
    assert 1 <= step <= -(-block // 6) and (block < 300 or step == 50)  # to the end of a row that was begun
    parts: dict[str, list[list[Tensor]]] = {"weight": [], "bias": []}
    for low in range(0, 50, step):
        for name, fixed in (("weight", weight), ("bias", bias)):
            found = drawing.block(sites[name], fixed, low, min(50, low + step), p)
            parts[name].append([x.clone() for x in found])  # the next block takes the same scratch
    for name, fixed in (("weight", weight), ("bias", bias)):
        for got, mu in zip(zip(*parts[name], strict=True), mus, strict=True):
            assert same(torch.cat(got), moved(fixed.data, owner, name, mu))
    assert torch.equal(weight, Net().wide.weight)  # never written


@pytest.mark.parametrize(("side", "mus"), SIDES)
def test_rows_of_a_table_are_rows_of_the_whole_table(side, mus):
    owner, rows = owner_of("table"), torch.tensor([29, 0, 7, 7])
    found = Draws("gaussian", Clock()).rows(owner.sites[0], rows, Pass(SEED, MU, side=side))
    for got, mu in zip(found, mus, strict=True):
        assert same(got, moved(owner.module.weight.data, owner, "weight", mu)[rows.numpy()])


@pytest.mark.parametrize(("side", "mus"), SIDES)
def test_the_weights_of_all_of_an_owners_sites(side, mus):
    model = nn.LayerNorm(8).requires_grad_(False)
    (owner,) = make_owners(find_sites(model, Weights(model)), dict(model.named_modules()))
    found = Draws("gaussian", Clock()).whole(owner, Pass(SEED, MU, side=side))
    for sides, mu in zip(found, mus, strict=True):
        for site, got in zip(owner.sites, sides, strict=True):
            assert same(got, moved(site.param, owner, site.attribute, mu))


def test_what_is_not_trained_is_taken_as_it_is():
    fixed, drawing = torch.arange(12.0).view(6, 2), Draws("gaussian", Clock())
    for side, sides in ((0, 2), (1, 1)):
        found = drawing.block(None, fixed, 2, 5, Pass(SEED, MU, side=side))
        assert len(found) == sides and all(torch.equal(x, fixed[2:5]) for x in found)
        assert drawing.block(None, None, 2, 5, Pass(SEED, MU, side=side)) == [None] * sides


def test_all_layers_share_scratch_that_only_grows():
    drawing, owners = Draws("gaussian", Clock()), [owner_of("wide"), owner_of("last")]
    wide, last = (next(s for s in owner.sites if s.attribute == "weight") for owner in owners)
    small = drawing.scratch(last, 10)
    assert drawing.scratch(wide, 4) is small and small[0].data_ptr() != small[1].data_ptr()
    large = drawing.scratch(wide, 11)
    assert large is not small and large[0].numel() == 11 and drawing.scratch(last, 11) is large
    assert {id(x) for x in drawing.all_scratch(owners)} == {id(x) for x in large}
    bias = next(s for s in owners[0].sites if s.attribute == "bias")
    assert drawing.scratch(bias, 4) is not large  # a block's weight and bias are read together
    assert len(drawing.all_scratch(owners)) == 4


def test_every_token_is_found_among_the_rows_that_are_looked_up():
    xs, table = [torch.tensor([[3, 9, 3], [0, 9, 1]]), torch.tensor([[4, 4, 4], [3, 0, 2]])], torch.empty(30, 2)
    rows, at = Draws("gaussian", Clock()).looked_up(xs, table)
    assert torch.equal(rows[at], torch.cat(xs)) and rows.tolist() == [0, 1, 2, 3, 4, 9]


def test_after_a_draw_time_goes_again_to_what_it_went_to_before():
    clock, owner = Clock(), owner_of("wide")
    for part in (FORWARD, UPDATE):
        clock.to(part)
        Draws("gaussian", clock).block(owner.sites[0], None, 0, 50, Pass(SEED, MU))
        assert clock.to(FORWARD) == part
