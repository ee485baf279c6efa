"""Sites, owners and their scratch; which arguments carry the batch; weights that are swapped and come back."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn

from hpcfed.probe.owners import (
    NotBatchFirst,
    Owner,
    enclosing,
    find_scales,
    find_sites,
    join,
    make_owners,
    recorded,
    swapped,
)
from hpcfed.weights import Weights
from tests.support.small import tiny_batch, tiny_model

Pair = namedtuple("Pair", ["x", "y"])


class Scaled(nn.Module):
    """Owns a parameter, and so does its child."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.ones(4)), nn.Linear(4, 4)

    def forward(self, x: Tensor, plus: tuple[Tensor, Tensor], *, times: Tensor) -> Tensor:
        return self.inner(x) * self.scale * times + plus[0]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.other, self.scaled = nn.LayerNorm(4), nn.LayerNorm(4, bias=False), Scaled()
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(self.other(self.norm(x)), (x, x.new_ones(3)), times=x.new_ones(2, 4)[:1])


def owners_of(model: nn.Module) -> dict[str, Owner]:
    """By the path of their module."""
    paths = dict(model.named_modules())
    owners = make_owners(find_sites(model, Weights(model)), paths)
    return {next(path for path, module in paths.items() if module is owner.module): owner for owner in owners}


def storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def test_every_place_that_reads_a_trained_parameter_is_a_site():
    model = tiny_model("opt", tied=True)
    weights = Weights(model)
    sites = find_sites(model, weights)
    assert {site.name for site in sites} == weights.params.keys()
    table = model.get_input_embeddings().weight
    tied = {path: site for site, path in sites.items() if site.param.data_ptr() == table.data_ptr()}
    assert tied.keys() == {"model.decoder.embed_tokens", "lm_head"}
    assert len({site.name for site in tied.values()}) == len({id(site.piece) for site in tied.values()}) == 1
    assert len(sites) == len(weights.params) + 1
    some = find_sites(model, Weights(model, ["*.fc1.bias"]))
    assert {(path, site.attribute) for site, path in some.items()} == {
        (f"model.decoder.layers.{i}.fc1", "bias") for i in range(3)
    }


def test_owners_without_children_share_scratch_and_those_with_children_have_their_own():
    owners = owners_of(Net())
    assert owners.keys() == {"norm", "other", "scaled", "scaled.inner"}
    for path, owner in owners.items():
        assert owner.in_parts == (path == "scaled.inner") and owner.shares == (path in ("norm", "other"))
        if not owner.in_parts:
            for buffers in (owner.plus, owner.minus):
                assert [b.shape for b in buffers] == [site.param.shape for site in owner.sites]
    assert not owners["scaled.inner"].plus and not owners["scaled.inner"].minus
    assert storage(owners["norm"].plus[0]) == storage(owners["other"].plus[0])
    places = {b.data_ptr() for owner in (owners["norm"], owners["scaled"]) for b in (*owner.plus, *owner.minus)}
    assert len(places) == 6  # weight, bias and scale of both sides: none is written while another is read


def test_a_layer_whose_forward_was_patched_is_left_to_itself():
    model = Net()
    plain = model.scaled.inner.forward
    model.scaled.inner.forward = lambda x: plain(x) + 1
    assert not owners_of(model)["scaled.inner"].in_parts


def test_what_ran_on_which_shapes_is_recorded_and_no_hook_stays():
    model, x = Net(), torch.ones(2, 4)
    calls = recorded(model, model, x)
    assert calls[model] == calls[model.norm] == [{0: (2, 4)}]
    assert calls[model.scaled] == [{0: (2, 4), (1, 0): (2, 4), (1, 1): (3,), "times": (1, 4)}]
    with pytest.raises(RuntimeError):
        recorded(model, model, torch.ones(2, 5))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_arguments_that_grow_with_the_batch_carry_it():
    inputs = [tiny_batch("opt", rows, 7) for rows in (2, 3)]
    model = tiny_model("opt")
    owners = owners_of(model)
    calls = [recorded(model, lambda i: model(**i).logits, small) for small in inputs]
    assert find_scales(list(owners.values()), *calls)
    assert owners["model.decoder.embed_tokens"].scales == {0: 1}
    assert owners["lm_head"].scales == {0: 1}


@pytest.mark.parametrize(
    ("two", "three", "scales"),
    [
        ([{0: (2, 5)}], [{0: (3, 5)}], {0: 1}),
        ([{0: (8, 5), "mask": (2, 1)}], [{0: (12, 5), "mask": (3, 1)}], {0: 4, "mask": 1}),
        ([{0: (2, 5)}] * 2, [{0: (3, 5)}] * 2, {0: 1}),
        ([{0: (7, 5)}], [{0: (7, 5)}], {}),  # no batch at all
        ([{0: (5, 2)}], [{0: (5, 3)}], None),  # the batch comes second
        ([{0: (2, 2)}], [{0: (3, 3)}], None),  # twice
        ([{(0, 1): (2, 5)}], [{(0, 1): (3, 5)}], None),  # inside a tuple
        ([{0: (3, 5)}], [{0: (4, 5)}], None),  # R + 1 rows
        ([{0: (2, 5)}, {0: (4, 5)}], [{0: (3, 5)}, {0: (6, 5)}], None),  # now k = 1, now k = 2
        ([{0: (2, 5)}], [{0: (3, 5), "mask": (3, 1)}], None),
    ],
    ids=str,
)
def test_batches_that_do_not_come_first_are_noticed(two, three, scales):
    owner = Owner(nn.Linear(5, 5), [])
    a, b = ({owner.module: [{k: torch.Size(s) for k, s in call.items()} for call in calls]} for calls in (two, three))
    assert find_scales([owner], a, b) == (scales is not None)
    assert scales is None or owner.scales == scales


def test_the_nearest_module_around_a_path_that_runs():
    model = Net()
    paths = dict(model.named_modules())
    assert enclosing("scaled.inner", {model, model.scaled}, paths) == "scaled"
    assert enclosing("scaled.inner", {model}, paths) == ""
    assert enclosing("scaled", {model, model.scaled}, paths) == ""
    assert enclosing("", {model}, paths) == ""


def test_swapped_weights_are_read_and_the_parameters_come_back():
    model, x = Net(), torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    owner, norm = owners_of(model)["norm"], model.norm
    weight, before = norm.weight, model.norm(x)
    with pytest.raises(KeyError), swapped(owner.sites, [torch.zeros(4), torch.full((4,), 7.0)]):
        assert torch.equal(norm(x), torch.full((2, 4), 7.0))
        raise KeyError
    assert norm.weight is weight and torch.equal(norm(x), before)


def test_outputs_of_both_sides_become_one_of_twice_the_rows():
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    assert join([a]) is a and torch.equal(join([a, b]), torch.cat([a, b])) and join([None, None]) is None
    nested = join([(a, [b, None]), (b, [a, None])])
    assert isinstance(nested, tuple) and isinstance(nested[1], list)
    assert torch.equal(nested[0], torch.cat([a, b])) and torch.equal(nested[1][0], torch.cat([b, a]))
    pair = join([Pair(a, b), Pair(b, b)])
    assert isinstance(pair, Pair) and torch.equal(pair.x, torch.cat([a, b])) and len(pair.y) == 4
    with pytest.raises(NotBatchFirst):
        join([{"x": a}, {"x": b}])
