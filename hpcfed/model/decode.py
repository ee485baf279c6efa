"""Greedy decoding: what a causal model writes after a prompt, the likeliest token at a time.

    generate = make_generate(model, row)
    answers = generate(inputs, most, stop)      inputs of R prompts -> R lists of token ids

Formula  y_t = argmax_v logits(x y_1 .. y_{t-1})[v], the lowest v of several; until y_t is a stop, or t = most
Legend   x: a prompt, y: its answer; the logits are those of the whole head at the last position
Promise  what a prompt's answer is does not depend on the prompts beside it, up to the rounding of sums in another
         order; all shards of a row give the same

What was read stays in the model's own cache of keys and values. A model without one, or whose cache changes what comes
out, which is found out by trial on the first prompts, reads all of it again each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import ConfigError, HpcfedError
from ..transport.row import Row
from .head import Forward, Inputs, takes, whole_head
from .load import positions

#: Logits that differ by more than this much of their spread are not the same ones, rounded otherwise.
APART = 0.05
STEPS = 2  # tokens of a trial
NOTHING = -1  # no token: the logits are not finite
#: (inputs of R prompts, most new tokens, ids that end an answer) -> R lists of ids, without the one that ended it.
#: inputs: input_ids and attention_mask, int64 [R, T], padded on the left, and position_ids where the model takes them.
Generate = Callable[[Inputs, int, frozenset[int]], list[list[int]]]

_caches: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # what `remembers` has found


def make_generate(model: nn.Module, row: Row, padding: bool = True) -> Generate:
    """Greedy decoding with `model`, collective over the row.

    padding: prompts of unequal length may be read in one batch; else, for a model that does not leave out padding on
    the left, those of each length are, and the model counts their positions itself.
    """

    @torch.inference_mode()
    def generate(inputs: Inputs, most: int, stop: frozenset[int]) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in inputs["input_ids"]]
        for rows, group in [(range(len(answers)), inputs)] if padding else by_length(inputs):
            with whole_head(model):
                read = make_reader(model, row, group, most)
                for i, answer in zip(rows, decode(read, group, most, stop, row), strict=True):
                    answers[i] = answer
        return answers

    return generate


def decode(read: Forward, inputs: Inputs, most: int, stop: frozenset[int], row: Row) -> list[list[int]]:
    """The loop. read: all inputs so far -> logits [R, V] of the last position; called once a token.

    An answer also ends where logits are NaN or infinite.
    """
    answers: list[list[int]] = [[] for _ in inputs["input_ids"]]
    going = set(range(len(answers)))
    for t in range(most):
        chosen = choose(read(inputs), row)
        for i in sorted(going):
            if chosen[i] in stop or chosen[i] == NOTHING:
                going.remove(i)
            else:
                answers[i].append(chosen[i])
        if not going:
            break
        if t + 1 < most:  # an answer that has ended is read on, for the others' sake
            inputs = longer(inputs, chosen)
    return answers


def choose(logits: Tensor, row: Row) -> list[int]:
    """The likeliest token of each row of logits [R, V], or NOTHING; the same on every shard: shard 0's."""
    largest, at = logits.max(-1)  # the first of several
    ids = torch.where(largest.isfinite(), at, NOTHING).cpu().numpy()
    row.share(ids)
    chosen: list[int] = ids.tolist()
    return chosen


def longer(inputs: Inputs, chosen: list[int]) -> Inputs:
    """The inputs with one more token a row."""
    ids = inputs["input_ids"]
    last = {name: x[:, -1:] for name, x in inputs.items()}
    last["input_ids"] = torch.tensor(chosen, dtype=ids.dtype, device=ids.device)[:, None].clamp(min=0)
    last["attention_mask"] = torch.ones_like(last["attention_mask"])
    if "position_ids" in last:
        last["position_ids"] = last["position_ids"] + 1
    return {name: torch.cat([x, last[name]], 1) for name, x in inputs.items()}


class Reader:
    """Reads a batch that grows: all inputs so far -> logits [R, V] of the last position.

    cached: nothing is read twice, if the model gives its cache.
    """

    def __init__(self, model: nn.Module, row: Row, cached: bool) -> None:
        self._model, self._row = model, row
        self._extra: dict[str, Any] = {"use_cache": True} if cached else {}
        if takes(model, "logits_to_keep"):
            self._extra["logits_to_keep"] = 1
        self._cache: Any = None
        self._read = 0  # tokens that are in the cache

    def __call__(self, inputs: Inputs) -> Tensor:
        new = inputs
        if self._cache is not None:
            new = {name: x if name == "attention_mask" else x[:, self._read :] for name, x in inputs.items()}
            self._extra["past_key_values"] = self._cache
        with self._row.peers():
            out = self._model(**new, **self._extra)
        if "use_cache" in self._extra:
            self._cache, self._read = getattr(out, "past_key_values", None), inputs["input_ids"].shape[1]
        logits: Tensor = out.logits
        return logits[:, -1]


def make_reader(model: nn.Module, row: Row, inputs: Inputs, most: int) -> Reader:
    """What reads these prompts and `most` tokens after them; called before anything in the model is changed.

    Raises ConfigError if the model has no positions for so long an answer.
    """
    check_room(model, inputs, most)
    return Reader(model, row, most > STEPS and remembers(model, row, inputs))


def remembers(model: nn.Module, row: Row, inputs: Inputs) -> bool:
    """Does reading on with the model's cache give what reading all again does? Found out once a model.

    Collective over the row.  The trial reads STEPS tokens after the shortest and the longest prompt.
    """
    if model not in _caches:
        known = takes(model, "past_key_values") and takes(model, "use_cache")
        _caches[model] = known and not row.any(not _same(model, row, inputs))
    return _caches[model]


def _same(model: nn.Module, row: Row, inputs: Inputs) -> bool:
    lengths = inputs["attention_mask"].sum(1)
    few = {name: x[[int(lengths.argmin()), int(lengths.argmax())]] for name, x in inputs.items()}
    read = Reader(model, row, cached=True)
    try:
        logits = read(few)
        for _ in range(STEPS):
            few = longer(few, choose(logits, row))
            logits = read(few)
    except (torch.OutOfMemoryError, HpcfedError):
        raise
    except Exception:  # anything: it is the model's own code
        return False
    own = Reader(model, row, cached=False)(few).double()
    return bool((logits - own).norm() <= APART * (own - own.mean()).norm())


def by_length(inputs: Inputs) -> Iterable[tuple[list[int], Inputs]]:
    """(places, inputs without padding and positions) of the prompts of each length."""
    groups: dict[int, list[int]] = {}
    for i, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        groups.setdefault(length, []).append(i)
    for length, rows in groups.items():
        yield rows, {name: x[rows, -length:] for name, x in inputs.items() if name != "position_ids"}


def check_room(model: Any, inputs: Inputs, most: int) -> None:
    """ConfigError unless the model has positions for the longest prompt and `most` tokens after it."""
    room, longest = positions(model.config), int(inputs["attention_mask"].sum(1).max())
    if room is not None and longest + most - 1 > room:  # nobody reads the last token
        raise ConfigError(
            f"an answer of {most} tokens to a prompt of {longest} does not fit the model's {room} positions: shorten "
            "the prompts or ask for fewer tokens"
        )
