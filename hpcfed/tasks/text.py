"""Text tasks: sentences to token ids, token ids to batches, logits to scores, for three kinds of model.

    causal-lm                 one sequence an example if every verbaliser is one token, else one a candidate; padded on
                              the left, so that the positions that matter are the last ones whatever the length; or on
                              the right, which a causal model cannot see, where it does not leave out padding
    masked-lm                 one sequence with the mask where the answer belongs; padded on the right
    sequence-classification   one sequence, or a pair of them; padded on the right

Formula  score of candidate c = mean over its tokens of log p(token | prompt, tokens before)      MeZO
         With one token each, the scores of all candidates share their normaliser, which the cross-entropy over the
         candidates cancels: their logits at one position are enough.
Legend   C: candidates, T: longest sequence of the batch, V: vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, DataError
from .base import Batch, Column, Example, Form, Ragged
from .prompts import Prompt, causal_candidates, masked_candidates, render
from .tokens import Bos, Lost, Spans, as_data, broken, control_ids, first_tokens, ids_of, spelled

Rows = Mapping[str, Sequence[str]]  # text column -> one string an example
Where = Callable[[int], str]  # how a message calls example i
Encode = Callable[[Rows, Where], tuple[dict[str, Column], Lost]]  # -> columns of Examples, and what was lost

_CHUNK = 4096  # examples tokenised at a time: bounds the memory that the tokenizer's lists take


def _chunks(rows: Rows) -> list[range]:
    count = len(next(iter(rows.values())))
    return [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]


def _says_nothing(rows: Rows, i: int) -> bool:
    """Whether example i has no text at all."""
    return not any(column[i] for column in rows.values())


def _rendered(parts: Sequence[Any], rows: Rows, chunk: range) -> list[tuple[str, list[tuple[int, int]]]]:
    return [render(parts, {name: column[i] for name, column in rows.items()}) for i in chunk]


def _pad(sequences: Sequence[Sequence[int] | np.ndarray], value: int, left: bool) -> Tensor:
    """int64 [rows, T] of `sequences`, filled up with `value` on the left or the right."""
    width = max(len(s) for s in sequences)
    out = np.full((len(sequences), width), value, np.int64)
    for row, sequence in zip(out, sequences, strict=True):
        row[slice(width - len(sequence), None) if left else slice(0, len(sequence))] = sequence
    return torch.from_numpy(out)


def _inputs(tokenizer: Any, sequences: Sequence[Any], left: bool) -> dict[str, Tensor]:
    mask = _pad([np.ones(len(s), np.int64) for s in sequences], 0, left)
    inputs = {"input_ids": _pad(sequences, tokenizer.pad_token_id, left), "attention_mask": mask}
    if left and "position_ids" in tokenizer.model_input_names:
        # Without them some models count the padding as positions, and an example's loss depends on its neighbours.
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return inputs


def _labels(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([example["label"] for example in examples], dtype=torch.int64)


def _too_long(prompt_tokens: int, max_length: int) -> ConfigError:
    return ConfigError(f"task.max_length={max_length}: too short, {prompt_tokens} tokens stand around the text alone")


# Causal language models


def causal_form(
    tokenizer: Any, prompt: Prompt, verbalizers: Sequence[str], max_length: int, bos: Bos = "auto"
) -> tuple[Encode, Form]:
    """How a causal language model sees a prompted task.  bos: see first_tokens."""
    candidates = causal_candidates(tokenizer, prompt, verbalizers)
    longest = max(map(len, candidates))
    first = first_tokens(tokenizer, bos)
    empty, _ = render(prompt.before, {part.column: "" for part in prompt.before if part.column})
    around = ids_of(tokenizer, empty.rstrip(" "))
    fixed = len(first) + len(around) + longest
    if fixed >= max_length:
        raise _too_long(fixed, max_length)
    encode = partial(_encode_causal, tokenizer, prompt, first, max_length - longest, around)
    heads = [ids[0] for ids in candidates] if longest == 1 else None

    def form(left: bool) -> Form:
        if heads is not None:
            collate = partial(_collate_last, tokenizer, left)
            return Form(collate, _scores_last, lambda e: len(e["input_ids"]), heads, int(left))
        collate = partial(_collate_candidates, tokenizer, candidates, left)
        return Form(
            collate,
            _scores_candidates,
            lambda e: len(candidates) * (len(e["input_ids"]) + longest),
            keep_last=(longest + 1) * left,
        )

    return encode, replace(form(left=True), right=form(left=False))


def _encode_causal(
    tokenizer: Any, prompt: Prompt, first: list[int], limit: int, around: list[int], rows: Rows, where: Where
) -> tuple[dict[str, Column], Lost]:
    """around: ids of the prompt without any text in it."""
    control, unknown_id = control_ids(tokenizer), tokenizer.unk_token_id
    own = sum(i in control for i in around)
    sequences: list[NDArray[np.int32]] = []
    cut = unknown = 0
    for chunk in _chunks(rows):
        texts = [(text.rstrip(" "), spans) for text, spans in _rendered(prompt.before, rows, chunk)]
        encoded = tokenizer([text for text, _ in texts], add_special_tokens=False, verbose=False)["input_ids"]
        for i, (text, spans), ids in zip(chunk, texts, encoded, strict=True):
            if not control.isdisjoint(ids) and sum(k in control for k in ids) > own:
                ids = _plain(tokenizer, control, text, spans, ids, own, where(i))
            unknown += _says_nothing(rows, i) or (
                unknown_id in ids and sum(k != unknown_id for k in ids) <= len(around)
            )
            cut += len(ids) + len(first) > limit
            # Cut at the front, behind bos: the end is where the question stands.
            ids = first + ids[max(0, len(ids) + len(first) - limit) :]
            if not ids:
                raise DataError(f"{where(i)}: its text and the prompt around it have no tokens at all")
            sequences.append(np.array(ids, np.int32))
    return {"input_ids": Ragged.of(sequences)}, Lost(cut, unknown, limit)


def _plain(
    tokenizer: Any, control: frozenset[int], text: str, spans: Spans, ids: list[int], own: int, where: str
) -> list[int]:
    """Ids of a text whose columns, and `own` times its prompt, spell control tokens: only the prompt's are kept."""
    if not own:
        return spelled(tokenizer, control, text)
    if not tokenizer.is_fast:
        raise DataError(
            f"{where}: its text spells a special token of the model, and so does task.prompt; this tokenizer, which is "
            "none of the fast ones, cannot tell them apart: take it out of the text"
        )
    return as_data(tokenizer, control, text, spans, ids)[0]


def _collate_last(tokenizer: Any, left: bool, examples: Sequence[Example]) -> Batch:
    """extra: end int64 [n], the number of tokens, where they are padded on the right."""
    sequences = [e["input_ids"] for e in examples]
    extra = {} if left else _ends(sequences)
    return Batch(_inputs(tokenizer, sequences, left), _labels(examples), 1, extra)


def _ends(sequences: Sequence[Any]) -> dict[str, Tensor]:
    return {"end": torch.tensor([len(s) for s in sequences], dtype=torch.int64)}


def _scores_last(logits: Tensor, batch: Batch) -> Tensor:
    """logits [n, positions, C], columns in the order of head_rows -> [n, C] of the last position."""
    if "end" in batch.extra:
        return logits[torch.arange(len(logits), device=logits.device), batch.extra["end"] - 1].float()
    return logits[:, -1].float()


def _collate_candidates(tokenizer: Any, candidates: list[list[int]], left: bool, examples: Sequence[Example]) -> Batch:
    """extra: answer int64 [n * C, longest], the candidate's token ids right-aligned; answer_mask: where they are;
    end int64 [n * C], the number of tokens, where they are padded on the right.
    """
    sequences = [np.concatenate([e["input_ids"], ids]) for e in examples for ids in candidates]
    extra = {
        "answer": _pad(candidates, 0, left=True).repeat(len(examples), 1),
        "answer_mask": _pad([[1] * len(ids) for ids in candidates], 0, left=True).repeat(len(examples), 1),
    }
    extra |= {} if left else _ends(sequences)
    return Batch(_inputs(tokenizer, sequences, left), _labels(examples), len(candidates), extra)


def _scores_candidates(logits: Tensor, batch: Batch) -> Tensor:
    """logits [n * C, positions, V], at least longest + 1 positions -> [n, C] mean log-probability per token."""
    answer, mask = batch.extra["answer"], batch.extra["answer_mask"]
    longest = answer.shape[1]
    # The logits one position before a token predict it; the last position predicts what nobody asked for.
    if "end" in batch.extra:
        at = batch.extra["end"][:, None] - 1 - longest + torch.arange(longest, device=logits.device)
        read = logits[torch.arange(len(logits), device=logits.device)[:, None], at.clamp(min=0)]
    else:
        read = logits[:, -longest - 1 : -1]
    logs = read.float().log_softmax(-1).gather(-1, answer[..., None]).squeeze(-1)
    return ((logs * mask).sum(-1) / mask.sum(-1)).view(-1, batch.rows_per_example)


# Masked language models


def masked_form(tokenizer: Any, prompt: Prompt, verbalizers: Sequence[str], max_length: int) -> tuple[Encode, Form]:
    """How a masked language model sees a prompted task; every verbaliser must be one token."""
    heads = [ids[0] for ids in masked_candidates(tokenizer, verbalizers)]
    row = {part.column: "" for part in (*prompt.before, *prompt.after) if part.column}
    empty = render(prompt.before, row)[0] + tokenizer.mask_token + render(prompt.after, row)[0]
    around = tokenizer(empty, verbose=False)["input_ids"]
    if len(around) >= max_length:
        raise _too_long(len(around), max_length)
    encode = partial(_encode_masked, tokenizer, prompt, max_length, around)
    return encode, Form(partial(_collate_masked, tokenizer), _scores_masked, lambda e: len(e["input_ids"]), heads)


def _encode_masked(
    tokenizer: Any, prompt: Prompt, max_length: int, around: list[int], rows: Rows, where: Where
) -> tuple[dict[str, Column], Lost]:
    """around: ids of the prompt without any text in it, with the mask and all special tokens."""
    control, unknown_id = control_ids(tokenizer), tokenizer.unk_token_id
    own = sum(i in control for i in around)
    sequences: list[NDArray[np.int32]] = []
    positions: list[int] = []
    cut = unknown = 0
    for chunk in _chunks(rows):
        texts, spans, ends = [], [], []
        sides = zip(_rendered(prompt.before, rows, chunk), _rendered(prompt.after, rows, chunk), strict=True)
        for (before, spans_before), (after, spans_after) in sides:
            head = before + tokenizer.mask_token
            texts.append(head + after)
            ends.append(len(head))
            spans.append(spans_before + [(a + len(head), b + len(head)) for a, b in spans_after])
        encoded = tokenizer(texts, return_offsets_mapping=True, verbose=False)
        for i, ids, offsets, where_text, end in zip(
            chunk, encoded["input_ids"], encoded["offset_mapping"], spans, ends, strict=True
        ):
            if sum(k in control for k in ids) > own:
                text = texts[i - chunk.start]
                ids, offsets = as_data(tokenizer, control, text, where_text, ids, offsets)
            unknown += _says_nothing(rows, i) or (
                unknown_id in ids and sum(k != unknown_id for k in ids) <= len(around)
            )
            kept = _shortened(offsets, where_text, max_length)
            cut += len(kept) < len(ids)
            # The mask that this prompt put there, not one that the text itself may spell.
            at = [k for k, j in enumerate(kept) if ids[j] == tokenizer.mask_token_id and offsets[j][1] == end]
            if len(kept) > max_length or len(at) != 1:
                raise DataError(f"{where(i)}: cannot be cut to task.max_length={max_length} tokens around the mask")
            sequences.append(np.array([ids[j] for j in kept], np.int32))
            positions.append(at[0])
    columns: dict[str, Column] = {"input_ids": Ragged.of(sequences), "mask_position": np.array(positions, np.int64)}
    return columns, Lost(cut, unknown, max_length)


def _shortened(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]], limit: int) -> list[int]:
    """Numbers of the tokens to keep: tokens inside the columns' `spans` go, one by one from the end of the longest."""
    excess = len(offsets) - limit
    if excess <= 0:
        return list(range(len(offsets)))
    inside = [[k for k, (a, b) in enumerate(offsets) if start <= a and b <= end and a < b] for start, end in spans]
    dropped = set()
    for _ in range(excess):
        longest = max(inside, key=len, default=[])
        if longest:
            dropped.add(longest.pop())
    return [k for k in range(len(offsets)) if k not in dropped]


def _collate_masked(tokenizer: Any, examples: Sequence[Example]) -> Batch:
    """extra: mask_position int64 [n]."""
    position = torch.tensor([int(e["mask_position"]) for e in examples], dtype=torch.int64)
    inputs = _inputs(tokenizer, [e["input_ids"] for e in examples], left=False)
    return Batch(inputs, _labels(examples), 1, {"mask_position": position})


def _scores_masked(logits: Tensor, batch: Batch) -> Tensor:
    """logits [n, T, C], columns in the order of head_rows -> [n, C] at each example's mask."""
    return logits[torch.arange(len(logits)), batch.extra["mask_position"]].float()


# Classifiers


def classifier_form(tokenizer: Any, columns: Sequence[str], max_length: int) -> tuple[Encode, Form]:
    """How a model with a classification head sees one text column, or two as a pair."""
    if len(columns) > 2:
        raise ConfigError(f"task.text={list(columns)}: a classifier takes one text column, or two as a pair")
    around = len(tokenizer(*[""] * len(columns), verbose=False)["input_ids"])  # special tokens
    if around >= max_length:
        raise _too_long(around, max_length)
    encode = partial(_encode_classifier, tokenizer, list(columns), max_length, around)
    return encode, Form(partial(_collate_classifier, tokenizer), _scores_classifier, lambda e: len(e["input_ids"]))


def _encode_classifier(
    tokenizer: Any, columns: list[str], max_length: int, around: int, rows: Rows, where: Where
) -> tuple[dict[str, Column], Lost]:
    names = [name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names]
    control, unknown_id = control_ids(tokenizer), tokenizer.unk_token_id
    sequences: dict[str, list[Any]] = {name: [] for name in names}
    cut = unknown = 0

    def encoded(texts: Sequence[Sequence[str]], **options: Any) -> Any:
        return tokenizer(*texts, return_special_tokens_mask=True, split_special_tokens=True, verbose=False, **options)

    for chunk in _chunks(rows):
        texts = [list(rows[column][chunk.start : chunk.stop]) for column in columns]
        found = encoded(texts, truncation="longest_first", max_length=max_length)
        for i, ids, added in zip(chunk, found["input_ids"], found["special_tokens_mask"], strict=True):
            own, k = [[column[i - chunk.start]] for column in texts], i - chunk.start
            if sum(j in control for j in ids) > sum(added):  # its vocabulary knows the token as a piece of text, too
                own = [[broken(tokenizer, control, text)] for (text,) in own]
                again = encoded(own, truncation="longest_first", max_length=max_length)
                for name in names:
                    found[name][k] = again[name][0]
                ids = again["input_ids"][0]
            if not ids:
                raise DataError(f"{where(i)}: its text has no tokens at all")
            unknown += _says_nothing(rows, i) or (unknown_id in ids and sum(j != unknown_id for j in ids) <= around)
            cut += len(ids) >= max_length and len(encoded(own)["input_ids"][0]) > len(ids)
        for name in names:
            sequences[name] += [np.array(ids, np.int32) for ids in found[name]]
    return {name: Ragged.of(values) for name, values in sequences.items()}, Lost(cut, unknown, max_length)


def _collate_classifier(tokenizer: Any, examples: Sequence[Example]) -> Batch:
    inputs = _inputs(tokenizer, [e["input_ids"] for e in examples], left=False)
    if "token_type_ids" in examples[0]:
        inputs["token_type_ids"] = _pad([e["token_type_ids"] for e in examples], 0, left=False)
    return Batch(inputs, _labels(examples))


def _scores_classifier(logits: Tensor, batch: Batch) -> Tensor:
    return logits.float()
