"""An orbit and its base model become the fine-tuned model, through the same apply_ that trained it.

Promise  the replayed weights have the fingerprint the run ended with, in any dtype the run used
"""

from __future__ import annotations

from collections.abc import Sequence

from ..algorithms import make_algorithm
from ..errors import ConfigError, OrbitError
from ..orbit import Header
from ..weights.mover import Mover, make_mover
from ..weights.weights import Weights


def check_base(header: Header, weights: Weights, dtype: str) -> None:
    """Raise OrbitError unless `weights` is the model the orbit starts from."""
    if dtype != header.dtype:
        raise OrbitError(f"the orbit was made with {header.dtype} weights, this model is loaded in {dtype}")
    if weights.layout_hash != header.layout_hash:
        raise OrbitError(
            f"the orbit belongs to another parameter layout ({header.layout_hash}, this model {weights.layout_hash}): "
            f"its base model is {header.base_model!r}, trained parameters {list(header.train_only) or 'all'}"
        )
    found = weights.fingerprint()
    if found != header.base_fingerprint:
        raise OrbitError(
            f"the orbit starts from other weights: base fingerprint {header.base_fingerprint}, this model has {found}; "
            f"its base model is {header.base_model!r}"
        )


def replay(header: Header, payloads: Sequence[bytes], weights: Weights, mover: Mover | None = None) -> None:
    """Move `weights` from the base model through the given rounds (from round 0), in one pass where no optimiser is.

    mover: what goes on moving them after that.
    """
    algorithm = make_algorithm(header)
    first = max(0, len(payloads) - 1) if algorithm.cumulative else 0
    updates = [algorithm.decode(payload, t) for t, payload in enumerate(payloads[first:], first)]
    if mover:
        mover.apply(updates)
        return
    try:
        make_mover(header, weights, last=True).apply(updates)
    except (ConfigError, TypeError, ValueError) as e:  # a recipe's fault is a stranger's here
        raise OrbitError(f"orbit header: its settings do not make an optimiser ({e})") from None
