"""What the papers make of a row before it is put into a prompt: the texts of columns, and candidates, rewritten.

A shape takes (texts by column, candidates) and gives the same as the prompt wants them; texts may be added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Texts = Mapping[str, str]
Shape = Callable[[Texts, Sequence[str]], tuple[dict[str, str], list[str]]]

_HIGHLIGHT, _PLACEHOLDER = "@highlight\n", "@placeholder"
_TOGETHER = "Below is an instruction that describes a task, paired with an input that provides further context. "
_ALONE = "Below is an instruction that describes a task. "
_ASKS = "Write a response that appropriately completes the request."


def copa(texts: Texts, choices: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """A premise that goes on with "so" or "because", and what follows it in lower case but for I (MeZO)."""
    joint = {"effect": "so", "cause": "because"}
    if texts["question"] not in joint:
        raise ValueError(f"column 'question' is {texts['question']!r}; write cause or effect")
    followed = [c if c.split(" ")[0] == "I" else c[:1].lower() + c[1:] for c in choices]
    return {**texts, "joint": joint[texts["question"]]}, followed


def record(texts: Texts, choices: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Highlights as a list, and the query with each entity in its place (MeZO)."""
    if _PLACEHOLDER not in texts["query"]:
        raise ValueError(f"column 'query' has no {_PLACEHOLDER} to fill in")
    passage = texts["passage"].replace(_HIGHLIGHT, "- ")
    return {**texts, "passage": passage}, [texts["query"].replace(_PLACEHOLDER, entity) for entity in choices]


def mmlu(texts: Texts, choices: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """A list of answers by letter; the letter is what is asked for."""
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))
    return {**texts, "listed": listed}, letters


def alpaca(texts: Texts, choices: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The opening words, and the block of the input where there is one (Stanford Alpaca)."""
    return _instructed(texts, texts["input"], _ASKS), list(choices)


def dolly(texts: Texts, choices: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The same in FedKSeed's words for Dolly."""
    return _instructed(texts, texts["context"], "Write a response for the task request."), list(choices)


def _instructed(texts: Texts, given: str, asks: str) -> dict[str, str]:
    block = f"### Input:\n{given}\n\n" if given else ""
    return {**texts, "opening": (_TOGETHER if given else _ALONE) + asks, "block": block}
