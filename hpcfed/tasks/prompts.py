"""Prompts: a template around an example's text, and the tokens that answer it.

Legend   a prompt is "text {column} text {column:form} text {verbalizer} text"; {verbalizer} occurs once
Promise  what is cut off when an example is too long is the example's own text, never the words of the prompt's end
         nor the place of the answer
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, did_you_mean
from .tokens import control_ids, ids_of

ANSWER = "verbalizer"


def _bare(text: str) -> str:
    return text[:-1] if text and text[-1] in string.punctuation else text


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _ask(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith("?") else "?")


#: {column:bare} drops a last punctuation mark, {column:lower} starts in lower case, {column:ask} is a question.
FORMS: dict[str, Callable[[str], str]] = {"": str, "bare": _bare, "lower": _lower, "ask": _ask}


@dataclass(frozen=True)
class Part:
    """Literal text followed by a column in some form (no column: the literal alone)."""

    literal: str
    column: str | None = None
    form: str = ""


@dataclass(frozen=True)
class Prompt:
    """What comes before and after the answer."""

    before: tuple[Part, ...]
    after: tuple[Part, ...]


def parse_prompt(text: str, columns: Sequence[str]) -> Prompt:
    """The template `text` over the text `columns`; ConfigError says what is wrong with it."""
    sides: list[list[Part]] = [[]]
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as e:
        raise ConfigError(f"task.prompt={text!r}: {e}; write literal braces twice") from None
    for literal, name, form, conversion in parts:
        if name is None:
            sides[-1].append(Part(literal))
        elif name == ANSWER:
            if form or conversion:
                raise ConfigError(f"task.prompt: {{{ANSWER}}} takes no form; write it plainly")
            sides[-1].append(Part(literal))
            sides.append([])
        elif name not in columns:
            raise ConfigError(f"task.prompt: {{{name}}} is no text column{did_you_mean(name, [*columns, ANSWER])}")
        elif form not in FORMS or conversion:
            given, known = f"!{conversion}" if conversion else f":{form}", did_you_mean(form or "", set(FORMS) - {""})
            raise ConfigError(f"task.prompt: {{{name}{given}}} has an unknown form{known}")
        else:
            sides[-1].append(Part(literal, name, form or ""))
    if len(sides) != 2:
        raise ConfigError(f"task.prompt={text!r}: must hold {{{ANSWER}}} exactly once, not {len(sides) - 1} times")
    if not any(part.column for side in sides for part in side):
        like = "".join(f"{{{name}}} " for name in columns)
        raise ConfigError(f"task.prompt={text!r}: shows the model nothing of an example; write {like}into it")
    return Prompt(tuple(sides[0]), tuple(sides[1]))


def render(parts: Sequence[Part], row: Mapping[str, str]) -> tuple[str, list[tuple[int, int]]]:
    """The text of `parts` for one example, and where in it (first character, end) each column's text lies."""
    text, spans = "", []
    for part in parts:
        text += part.literal
        if part.column is not None:
            words = FORMS[part.form](row[part.column])
            spans.append((len(text), len(text) + len(words)))
            text += words
    return text, spans


def causal_candidates(tokenizer: Any, prompt: Prompt, verbalizers: Sequence[str]) -> list[list[int]]:
    """The token ids with which each verbaliser continues the prompt, in the prompt's context."""
    if any(part.column or part.literal.strip() for part in prompt.after):
        raise ConfigError("task.prompt: a causal model reads from left to right, so {verbalizer} must be at the end")
    row = {part.column: "a" for part in prompt.before if part.column}
    text, _ = render(prompt.before, row)
    before = ids_of(tokenizer, text.rstrip(" "))
    candidates = []
    for verbalizer in verbalizers:
        whole = ids_of(tokenizer, text + verbalizer)
        if whole[: len(before)] != before or len(whole) == len(before):
            raise ConfigError(
                f"task.verbalizers: {verbalizer!r} does not continue the prompt {text!r} with tokens of its own; "
                "end the prompt with a space or a new line before {verbalizer}"
            )
        candidates.append(whole[len(before) :])
    return _checked(tokenizer, candidates, verbalizers)


def masked_candidates(tokenizer: Any, verbalizers: Sequence[str]) -> list[list[int]]:
    """The one token of each verbaliser as a word of its own (with the space before it, as LM-BFF does)."""
    candidates = [ids_of(tokenizer, f" {verbalizer}") for verbalizer in verbalizers]
    for verbalizer, ids in zip(verbalizers, candidates, strict=True):
        if len(ids) != 1:
            tokens = tokenizer.convert_ids_to_tokens(ids)
            raise ConfigError(
                f"task.verbalizers: {verbalizer!r} is {len(ids)} tokens of this model ({', '.join(map(repr, tokens))}) "
                "where a masked language model needs one; choose a more common word"
            )
    return _checked(tokenizer, candidates, verbalizers)


def _checked(tokenizer: Any, candidates: list[list[int]], verbalizers: Sequence[str]) -> list[list[int]]:
    """ConfigError for words that the tokenizer does not know, takes for control tokens, or does not tell apart."""
    control, seen = control_ids(tokenizer), dict[tuple[int, ...], str]()
    for ids, verbalizer in zip(candidates, verbalizers, strict=True):
        if not control.isdisjoint(ids) or tokenizer.unk_token_id in ids:
            what = "a control token" if not control.isdisjoint(ids) else f"unknown ({tokenizer.unk_token})"
            raise ConfigError(f"task.verbalizers: {verbalizer!r} is {what} to the model's tokenizer; choose another")
        if tuple(ids) in seen:
            twin = seen[tuple(ids)]
            raise ConfigError(f"task.verbalizers: {twin!r} and {verbalizer!r} are the same tokens of this model")
        seen[tuple(ids)] = verbalizer
    return candidates
