"""What a tokenizer puts around a text, and what it makes of a text that spells one of its control tokens.

Legend   control token: a special token of the tokenizer (bos, eos, pad, mask, <|im_start|> ...); not its unknown token
Promise  a text is data: what it spells never becomes a control token; those of a prompt, which its author wrote, do
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ConfigError

Bos = Literal["auto"] | bool | int
Spans = Sequence[tuple[int, int]]  # first character and end of each column's text
_SAMPLES = ("It was", "a", "the film")


@dataclass(frozen=True)
class Lost:
    """What texts lost on the way to tokens.

    cut: examples of more than `most` tokens.  unknown: examples of whose text the tokenizer knows no token, or that
    have none.
    """

    cut: int = 0
    unknown: int = 0
    most: int = 0

    @staticmethod
    def sum(parts: Iterable[Lost]) -> Lost:
        whole = Lost()
        for part in parts:
            whole = Lost(whole.cut + part.cut, whole.unknown + part.unknown, max(whole.most, part.most))
        return whole


def ids_of(tokenizer: Any, text: str, **options: Any) -> list[int]:
    """Token ids of `text` without special tokens."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"])


def first_tokens(tokenizer: Any, bos: Bos = "auto") -> list[int]:
    """The ids in front of a causal model's text.  bos: as task.bos.

    "auto": what the tokenizer itself puts before a text, which is not always its bos.
    """
    if bos == "auto":
        found = [_before(tokenizer, text) for text in _SAMPLES]
        if found[0] is None or any(ids != found[0] for ids in found):
            raise ConfigError(
                'task.bos="auto": the tokenizer does not put the same tokens before every text; say which token comes '
                "first: task.bos=true (its bos), false (none) or a token's number"
            )
        return found[0]
    if bos is False:
        return []
    if bos is True:
        if tokenizer.bos_token_id is None:
            raise ConfigError("task.bos=true: the tokenizer has no bos token; use auto, false or a token's number")
        return [tokenizer.bos_token_id]
    if bos >= len(tokenizer):
        raise ConfigError(f"task.bos={bos}: the tokenizer has only tokens 0..{len(tokenizer) - 1}")
    return [bos]


def _before(tokenizer: Any, text: str) -> list[int] | None:
    """What the tokenizer puts before this text; None if it does other things with it."""
    bare, whole = ids_of(tokenizer, text), list(tokenizer(text, verbose=False)["input_ids"])
    for at in range(len(whole) - len(bare) + 1):
        if whole[at : at + len(bare)] == bare:
            return whole[:at]
    return None


def control_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokenizer's control tokens."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(
        tokenizer.all_special_ids
    )
    names = ("bos", "eos", "pad", "cls", "sep", "mask")
    if tokenizer.unk_token_id not in {getattr(tokenizer, f"{name}_token_id", None) for name in names}:
        special.discard(tokenizer.unk_token_id)
    return frozenset(special)


def as_data(
    tokenizer: Any, control: frozenset[int], text: str, spans: Spans, ids: Sequence[int], offsets: Spans | None = None
) -> tuple[list[int], list[tuple[int, int]]]:
    """(ids, offsets) of a text in which control tokens that its `spans` spell are plain text.

    ids: as the tokenizer gives them.  offsets: of each token; None: they are asked for if they are needed.
    """
    if offsets is None:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
    out: list[int] = []
    places: list[tuple[int, int]] = []
    for i, (a, b) in zip(ids, offsets, strict=True):
        if i in control and a < b and any(start < b <= end for start, end in spans):
            plain = spelled(tokenizer, control, text[a:b])
            out += plain
            places += [(a, b)] * len(plain)
        else:
            out.append(i)
            places.append((a, b))
    return out, places


def spelled(tokenizer: Any, control: frozenset[int], text: str) -> list[int]:
    """Ids of a text that spells control tokens, none of which is one."""
    ids = ids_of(tokenizer, text, split_special_tokens=True)
    if control.isdisjoint(ids):
        return ids
    # Its vocabulary knows the token as a piece of text, too.
    return [i for character in text for i in ids_of(tokenizer, character) if i not in control]


def broken(tokenizer: Any, control: frozenset[int], text: str) -> str:
    """The text with a blank inside each control token that it spells."""
    for token in sorted(tokenizer.convert_ids_to_tokens(sorted(control)), key=len, reverse=True):
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text
