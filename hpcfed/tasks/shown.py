"""An example as the model sees it: each of its sequences, with what the loss reads marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import Example, Task

OPENS, CLOSES = "⟦", "⟧"  # around the tokens that the loss reads


def shown(task: Task, tokenizer: Any, example: Example) -> list[str]:
    """A line, or several, for each sequence of the example in training; of a picture its size."""
    batch = task.collate([example])
    ids = batch.inputs.get("input_ids")
    if ids is None:
        return [f"{name}: {' x '.join(map(str, x.shape[1:]))}" for name, x in batch.inputs.items()]
    real = [
        row[mask.bool()].tolist() for row, mask in zip(ids.cpu(), batch.inputs["attention_mask"].cpu(), strict=True)
    ]
    if "answer_mask" in batch.extra:
        counts = batch.extra["answer_mask"].sum(-1).tolist()
        return [_marked(tokenizer, row, len(row) - n, len(row)) for row, n in zip(real, counts, strict=True)]
    words = [tokenizer.decode([i]) for i in task.head_rows or ()]
    if "mask_position" in batch.extra:
        at = int(batch.extra["mask_position"][0])
        return [_marked(tokenizer, real[0], at, at + 1), f"{OPENS}{CLOSES} is one of: {_listed(words)}"]
    if words:
        return [tokenizer.decode(real[0]) + OPENS + CLOSES, f"{OPENS}{CLOSES} is one of: {_listed(words)}"]
    return [tokenizer.decode(row) for row in real]


def right_answer(task: Task, example: Example) -> str:
    """What is right of an example, in words."""
    if "references" in example:
        return " | ".join(example["references"])
    return task.labels[example["label"]] if task.labels else str(example["label"])


def _marked(tokenizer: Any, ids: Sequence[int], low: int, high: int) -> str:
    said = (tokenizer.decode(list(part)) for part in (ids[:low], ids[low:high], ids[high:]))
    before, read, after = said
    return f"{before}{OPENS}{read}{CLOSES}{after}"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words))
