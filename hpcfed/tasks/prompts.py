"""Prompts: a template around an example's columns, and the place of the answer.

    "text {column} text {column:form} {verbalizer}"    {column} is a column, in one of FORMS; a dot digs into objects
    "jinja: text {{ column }} {{ verbalizer }}"        the same in Jinja, in its sandbox

Legend   the answer's place is {verbalizer} where the classes have words, {answer} where every example has its own
Promise  what is cut off when an example is too long is the example's own text, never the words of the prompt's end
         nor the place of the answer. A text is data: what it spells becomes no control token
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ConfigError, DataError, did_you_mean, first_line
from .rows import type_name
from .tokens import Bos, broken, control_ids, first_tokens, ids_of

VERBALIZER, ANSWER = "verbalizer", "answer"  # how templates call the place of the answer
JINJA = "jinja:"
#: Of a private use area: stands for the answer, or a message, while a template is rendered.
_PLACE = "\uf8ff\ue0a5\uf8ff"

Said = tuple[str, list[tuple[int, int]]]  # a text, and where in it (first character, end) columns' texts lie


def _bare(text: str) -> str:
    return text[:-1] if text and text[-1] in string.punctuation else text


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _ask(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith("?") else "?")


#: {column:bare} drops a last punctuation mark, {column:cut} a last character, {column:undot} a last full stop;
#: {column:lower} starts in lower case, {column:small} is in lower case; {column:ask} is a question, {column:words} has
#: blanks for underscores.
FORMS: dict[str, Callable[[str], str]] = {
    "": str,
    "bare": _bare,
    "cut": lambda text: text[:-1],
    "undot": lambda text: text.rstrip().removesuffix("."),
    "lower": _lower,
    "small": str.lower,
    "ask": _ask,
    "words": lambda text: text.replace("_", " "),
}


class Prompt(Protocol):
    """columns: what it reads of an example, in order.  raw: as the data have them, else as texts."""

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def raw(self) -> bool: ...

    def sides(self, row: Mapping[str, Any]) -> tuple[Said, Said]:
        """What comes before and after the answer, for one example."""
        ...


@dataclass(frozen=True)
class Part:
    """Literal text followed by a column in some form (no column: the literal alone)."""

    literal: str
    column: str | None = None
    form: str = ""


@dataclass(frozen=True)
class Template:
    """A prompt in braces."""

    before: tuple[Part, ...]
    after: tuple[Part, ...]
    raw = False

    @property
    def columns(self) -> list[str]:
        """In their order, once."""
        return list(dict.fromkeys(part.column for part in (*self.before, *self.after) if part.column))

    def sides(self, row: Mapping[str, Any]) -> tuple[Said, Said]:
        """See Prompt."""
        return render(self.before, row), render(self.after, row)


def parse_prompt(text: str, columns: Sequence[str] | None, place: str = VERBALIZER) -> Prompt:
    """The template `text` over the text `columns` (None: any); ConfigError says what is wrong with it.

    place: what the place of the answer is called.
    """
    if text.lstrip().startswith(JINJA):
        return jinja_prompt(text.lstrip().removeprefix(JINJA).lstrip(" "), place)
    sides: list[list[Part]] = [[]]
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as e:
        raise ConfigError(f"task.prompt={text!r}: {e}; write literal braces twice") from None
    for literal, name, form, conversion in parts:
        if name is None:
            sides[-1].append(Part(literal))
        elif name == place:
            if form or conversion:
                raise ConfigError(f"task.prompt: {{{place}}} takes no form; write it plainly")
            sides[-1].append(Part(literal))
            sides.append([])
        elif not name or name == VERBALIZER or (columns is not None and name not in columns):
            known = [*(columns or ()), place]
            raise ConfigError(f"task.prompt: {{{name}}} is no text column{did_you_mean(name, known)}")
        elif form not in FORMS or conversion:
            given, near = f"!{conversion}" if conversion else f":{form}", did_you_mean(form or "", set(FORMS) - {""})
            raise ConfigError(f"task.prompt: {{{name}{given}}} has an unknown form{near}")
        else:
            sides[-1].append(Part(literal, name, form or ""))
    if len(sides) != 2:
        raise ConfigError(f"task.prompt={text!r}: must hold {{{place}}} exactly once, not {len(sides) - 1} times")
    if not any(part.column for side in sides for part in side):
        like = "".join(f"{{{name}}} " for name in columns or ["COLUMN"])
        raise ConfigError(f"task.prompt={text!r}: shows the model nothing of an example; write {like}into it")
    return Template(tuple(sides[0]), tuple(sides[1]))


def render(parts: Sequence[Part], row: Mapping[str, str]) -> Said:
    """The text of `parts` for one example, and where in it (first character, end) each column's text lies."""
    text, spans = "", []
    for part in parts:
        text += part.literal
        if part.column is not None:
            words = FORMS[part.form](row[part.column])
            spans.append((len(text), len(text) + len(words)))
            text += words
    return text, spans


# Jinja


@dataclass(frozen=True, eq=False)
class Jinja:
    """A prompt in Jinja.  template: compiled.  place: what it calls the answer."""

    template: Any
    columns: Sequence[str]
    place: str
    raw = True

    def sides(self, row: Mapping[str, Any]) -> tuple[Said, Said]:
        """See Prompt. Raises DataError, without the row, for what the template cannot do with this example."""
        try:
            text = self.template.render({**row, self.place: _PLACE})
        except Exception as e:  # anything: it is the user's program
            raise DataError(f"task.prompt: Jinja says {type(e).__name__}: {first_line(e)}") from None
        before, found, after = text.partition(_PLACE)
        if _PLACE in after:
            raise DataError(f"task.prompt: shows {{{{ {self.place} }}}} more than once; its place is one")
        if not found and before and not before[-1].isspace():
            before += " "  # as lm-evaluation-harness joins a prompt and its target
        return (before, []), (after, [])


def jinja_prompt(text: str, place: str) -> Jinja:
    """The template `text`. ConfigError says what is wrong with it."""
    from jinja2 import StrictUndefined, TemplateError, meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, finalize=_written
    )
    del environment.filters["random"], environment.globals["lipsum"]  # another prompt on every rank
    try:
        tree = environment.parse(text)
        template = environment.from_string(text)
    except TemplateError as e:
        line = getattr(e, "lineno", None)
        at = f" (line {line})" if line else ""
        raise ConfigError(f"task.prompt is no Jinja template: {first_line(e)}{at}") from None
    columns = sorted(meta.find_undeclared_variables(tree) - {place, *environment.globals})
    if not columns:
        raise ConfigError("task.prompt: the Jinja template names no column; write {{ COLUMN }} into it")
    return Jinja(template, columns, place)


def _written(value: Any) -> Any:
    """What {{ }} writes, unless it is what no text can be."""
    if value is None:
        raise ValueError("a value is missing where it is written; ask before, {% if COLUMN %}, or give a default")
    if isinstance(value, list | dict):
        raise ValueError(f"{value!r:.60} is {type_name(type(value))}; loop over it, join it, or write a part of it")
    return value


def without_control(tokenizer: Any, control: frozenset[int], value: Any) -> Any:
    """A value for Jinja in which no text spells a control token: a blank breaks it."""
    if isinstance(value, str):
        return broken(tokenizer, control, value)
    if isinstance(value, list):
        return [without_control(tokenizer, control, part) for part in value]
    if isinstance(value, dict):
        return {key: without_control(tokenizer, control, part) for key, part in value.items()}
    return value


# Chat templates


@dataclass(frozen=True, eq=False)
class Chat:
    """A prompt inside a chat template: what the user says.  head, tail: what the template puts around it.

    strips: the template takes blanks off what the user says.
    """

    prompt: Prompt
    head: str
    tail: str
    strips: bool = False

    @property
    def columns(self) -> Sequence[str]:
        """Of the prompt."""
        return self.prompt.columns

    @property
    def raw(self) -> bool:
        """Of the prompt."""
        return self.prompt.raw

    def sides(self, row: Mapping[str, Any]) -> tuple[Said, Said]:
        """See Prompt."""
        (text, spans), (after, _) = self.prompt.sides(row)
        begin, end = len(text) - len(text.lstrip()) if self.strips else 0, len(text.rstrip())
        at = len(self.head) - begin
        moved = [(max(a, begin) + at, min(b, end) + at) for a, b in spans if a < end and b > begin]
        if after.strip():
            raise DataError("task.chat=true: the prompt goes on after the answer, and a chat does not")
        return (self.head + text[begin:end] + self.tail, moved), ("", [])


def in_chat(prompt: Prompt, tokenizer: Any) -> Chat:
    """The prompt as what the user of a chat says. ConfigError if the tokenizer has no chat template that says it."""
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError("task.chat=true: the model's tokenizer has no chat template; leave it out")

    def chat(content: str) -> str:
        messages = [{"role": "user", "content": content}]
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as e:  # whatever the template's author wrote
            raise ConfigError(f"task.chat=true: the tokenizer's chat template fails: {first_line(e)}") from None

    head, *tails = chat(_PLACE).split(_PLACE)
    said, kept = f"\n Ab c. {_PLACE}", ""
    if len(tails) == 1:
        kept = chat(said).removeprefix(head).removesuffix(tails[0])
    if kept not in (said, said.lstrip()):
        raise ConfigError(
            "task.chat=true: the tokenizer's chat template does not say once, as it is, what the user says"
        )
    return Chat(prompt, head, tails[0], strips=kept != said)


def leading(tokenizer: Any, prompt: Prompt, bos: Bos) -> tuple[list[int], int]:
    """(ids in front of a causal prompt, how many of the tokens are never cut: these, and what opens a chat).

    bos: as task.bos. A chat template brings what it wants in front of it: "auto" adds nothing.
    """
    if not isinstance(prompt, Chat):
        first = first_tokens(tokenizer, bos)
        return first, len(first)
    opening = ids_of(tokenizer, prompt.head)
    first = [] if bos == "auto" else first_tokens(tokenizer, bos)
    if first and opening[:1] == first:
        first = []
    if bos is False and opening and opening[0] == tokenizer.bos_token_id:
        raise ConfigError("task.bos=false: the chat template itself begins with the bos token; leave it out")
    for text in ("It was", "a", "1", '"'):  # what follows may melt into the opening
        whole = ids_of(tokenizer, prompt.head + text)
        same = (a == b for a, b in zip(opening, whole, strict=False))
        opening = opening[: next((i for i, alike in enumerate(same) if not alike), min(len(opening), len(whole)))]
    return first, len(first) + len(opening)


# Verbalisers


def causal_candidates(
    tokenizer: Any, prompt: Prompt, verbalizers: Sequence[str], sample: Mapping[str, Any] | None = None
) -> list[list[int]]:
    """The token ids with which each verbaliser continues the prompt, in the prompt's context.

    sample: values of an example; a prompt in Jinja may not take any others.
    """
    (text, _), (after, _) = prompt.sides(sample or dict.fromkeys(prompt.columns, "a"))
    if after.strip() or _reads_on(prompt):
        raise ConfigError("task.prompt: a causal model reads from left to right, so {verbalizer} must be at the end")
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


def _reads_on(prompt: Prompt) -> bool:
    """Whether a column stands after the answer."""
    inner = prompt.prompt if isinstance(prompt, Chat) else prompt
    return isinstance(inner, Template) and any(part.column for part in inner.after)


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
