"""What is found out by trial before the first pass: who owns what, is the batch first everywhere, is padding read.

    bind(probe, inputs)            sets probe.owners, mode, late and packs
    bound_probe(inputs, ...)       a Probe that is bound

Promise  every row that binds on the same batch finds the same; a probe that is wrong about its model is not used: what
         the dual forward computes is compared with two plain passes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..clock import Clock
from ..errors import DivergedError
from ..model.head import Forward, Inputs
from ..weights import Weights
from .draws import Pass
from .dual import UNFIT, Probe, Sides
from .owners import Calls, Site, enclosing, find_scales, find_sites, make_owners, recorded, swapped
from .packing import Packing

TRIAL_MU = 0.02  # large, so that a half that runs on the wrong side shows

#: Whether what came out is what was expected, one tensor a side.
Agrees = Callable[[Sequence[Tensor], Sequence[Tensor]], bool]


def bound_probe(
    inputs: Inputs,
    model: nn.Module,
    forward: Forward,
    weights: Weights,
    distribution: str,
    graphs: bool = False,
    clock: Clock | None = None,
) -> Probe:
    """A Probe, bound on a batch."""
    probe = Probe(model, forward, weights, distribution, graphs, clock)
    bind(probe, inputs)
    return probe


@torch.inference_mode()
def bind(probe: Probe, inputs: Inputs, seed: int = 0) -> None:
    """Find out by trial on a batch how the model is to be probed; every row must bind on the same one.

    Raises DivergedError if the model's logits are not finite there, since nothing can be found out then.
    """
    rows = next(iter(inputs.values())).shape[0]
    few = [{k: v[torch.arange(n) % rows] for k, v in inputs.items()} for n in (2, 3)]
    calls = [recorded(probe.model, probe.forward, small) for small in few]
    if not bool(probe.forward(few[1]).isfinite().all()):
        raise DivergedError(
            "the base model's logits are not finite on the first training examples: its weights are damaged, or "
            "model.dtype is too narrow for it (float32 and bfloat16 reach further than float16)"
        )
    _attribute(probe, few[0], seed, *calls)
    expected = choose_mode(probe, few[1], seed, close, *calls)
    probe.packs = _ignores_padding(probe, few[1], seed, expected)


def settle(probe: Probe, two: Calls, three: Calls) -> tuple[dict[Site, str], dict[str, nn.Module]]:
    """Owners as far as shapes tell; (the path of each site's owner, all modules by path).

    two, three: the calls of runs with two and with three rows.
    """
    paths = dict(probe.model.named_modules())
    home = find_sites(probe.model, probe.weights)
    for site in home:
        if (seen := two.get(site.module)) and seen == three[site.module]:
            home[site] = enclosing(home[site], set(two), paths)
    probe.owners = make_owners(home, paths)
    return home, paths


def choose_mode(probe: Probe, inputs: Inputs, seed: int, agrees: Agrees, *calls: Calls) -> Sides:
    """Dual if it computes what two passes do, and late if it does so too; what the two passes compute."""
    expected = probe.two_passes(inputs, Pass(seed, TRIAL_MU))

    def fits() -> bool:
        try:
            return agrees(probe.dual(inputs, Pass(seed, TRIAL_MU, trial=True)), expected)
        except UNFIT:
            return False

    dual = find_scales(probe.owners, *calls) and fits()
    probe.late = dual and len(probe.weights.params) < len(list(probe.model.parameters()))
    probe.late = probe.late and fits()
    if not probe.late:
        for owner in probe.owners:
            owner.single.clear()
    probe.mode = "dual" if dual else "two-pass"
    return expected


def _ignores_padding(probe: Probe, inputs: Inputs, seed: int, expected: Sides) -> bool:
    """Are the logits of real tokens the same without products for padding? False also if there is no padding."""
    mask = inputs.get("attention_mask")
    if mask is None or mask.dim() != 2 or bool(mask.all()):
        return False
    p = Pass(seed, TRIAL_MU, packing=Packing.of(mask.flatten().nonzero().squeeze(1), mask.shape))
    seen = [x[mask.bool()] if x.shape[:2] == mask.shape else x for x in expected]
    try:
        got = (probe.dual if probe.mode == "dual" else probe.two_passes)(inputs, p)
    except UNFIT:
        return False
    return close([x[mask.bool()] if x.shape[:2] == mask.shape else x for x in got], seen)


def _attribute(probe: Probe, inputs: Inputs, seed: int, two: Calls, three: Calls) -> None:
    """Give every parameter to a module inside whose forward all its reads happen, and whose input is the batch.

    At rest a parameter reads as NaN; if a NaN comes out, some module reads it outside its owner's forward, and the
    enclosing module that runs becomes its owner (torch's MultiheadAttention reads its child's weight so). So it does if
    its owner never sees the batch (BERT's position embeddings look up the same rows for all).
    """
    home, paths = settle(probe, two, three)
    suspects = {site.name for site in home} if _leaks(probe, inputs, seed, list(home)) else set()
    for name in sorted(suspects):
        sites = [site for site in home if site.name == name]
        while _leaks(probe, inputs, seed, sites):
            assert any(home[site] for site in sites), f"{name} is read outside the model"
            for site in sites:
                home[site] = enclosing(home[site], set(two), paths)
            probe.owners = make_owners(home, paths)


def _leaks(probe: Probe, inputs: Inputs, seed: int, sites: list[Site]) -> bool:
    """Does any module read one of `sites` while its owner is at rest?"""
    params = [site.param for site in sites]
    nothing = [torch.full((), torch.nan, dtype=p.dtype, device=p.device).expand(p.shape) for p in params]
    with swapped(sites, nothing), probe.installed(Pass(seed, 0.0, side=1)):
        return not bool(probe.forward(inputs).isfinite().all())


def close(got: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Equal up to the rounding of another batch size."""
    tolerance = 1e-4 if expected[0].dtype == torch.float32 else 1e-2
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))
        for a, b in zip(got, expected, strict=True)
    )
