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
from .padding import ends_of, inputs_of, labels_of, padded
from .prompts import Prompt, Said, causal_candidates, leading, masked_candidates, without_control
from .rows import Split
from .tokens import Bos, Lost, Spans, as_data, broken, control_ids, ids_of, spelled

Rows = Mapping[str, Sequence[Any]]  # column -> one value an example, a text unless the prompt is in Jinja
Where = Callable[[int], str]  # how a message calls example i
Encode = Callable[[Rows, Where], tuple[dict[str, Column], Lost]]  # -> columns of Examples, and what was lost

_CHUNK = 4096  # examples tokenised at a time: bounds the memory that the tokenizer's lists take


def chunks(rows: Rows) -> list[range]:
    count = len(next(iter(rows.values())))
    return [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]


def says_nothing(rows: Rows, i: int) -> bool:
    """Whether example i has no text at all."""
    return not any(column[i] or column[i] == 0 for column in rows.values())


def rendered(prompt: Prompt, rows: Rows, where: Where, chunk: range) -> list[tuple[Said, Said]]:
    """Both sides of the prompt for some examples. DataError with the row for one that it does not take."""
    sides = []
    for i in chunk:
        try:
            sides.append(prompt.sides({name: column[i] for name, column in rows.items()}))
        except DataError as e:
            raise DataError(f"{where(i)}: {e}") from None
    return sides


def values_for(tokenizer: Any, split: Split, columns: Sequence[str], rows: Sequence[int] | NDArray[np.int64]) -> Rows:
    """The values of some rows as a template in Jinja gets them: no text in them spells a control token."""
    control, found = control_ids(tokenizer), {}
    for name in columns:
        values = split.column(name, "task.prompt", one_type=False)
        found[name] = [without_control(tokenizer, control, values[i]) for i in rows]
    return found


def around(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Ids of a causal prompt without any text in it; of one in Jinja nothing is known."""
    return [] if prompt.raw else ids_of(tokenizer, prompt.sides(dict.fromkeys(prompt.columns, ""))[0][0].rstrip(" "))


def too_long(prompt_tokens: int, max_length: int, free: int = 0) -> ConfigError:
    """free: see kept_free."""
    kept = kept_free(free)
    return ConfigError(
        f"task.max_length={max_length}{kept}: too short, {prompt_tokens} tokens stand around the text alone"
    )


def kept_free(most: int) -> str:
    """What a message about a length says of the tokens that a generated answer may have."""
    return f", of which task.max_new_tokens={most} are kept free" if most else ""


# Causal language models


def causal_form(
    tokenizer: Any,
    prompt: Prompt,
    verbalizers: Sequence[str],
    max_length: int,
    bos: Bos = "auto",
    sample: Mapping[str, Any] | None = None,
) -> tuple[Encode, Form]:
    """How a causal language model sees a prompted task.  bos: see leading.  sample: see causal_candidates."""
    candidates = causal_candidates(tokenizer, prompt, verbalizers, sample)
    longest = max(map(len, candidates))
    first, kept = leading(tokenizer, prompt, bos)
    fixed = max(len(first) + len(around(tokenizer, prompt)), kept) + longest
    if fixed >= max_length:
        raise too_long(fixed, max_length)
    encode = partial(_encode_causal, tokenizer, prompt, first, kept, max_length - longest)
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
    tokenizer: Any, prompt: Prompt, first: list[int], kept: int, limit: int, rows: Rows, where: Where
) -> tuple[dict[str, Column], Lost]:
    spell, empty, unknown_id = Speller(tokenizer, prompt), len(around(tokenizer, prompt)), tokenizer.unk_token_id
    sequences: list[NDArray[np.int32]] = []
    cut = unknown = 0
    for chunk in chunks(rows):
        texts = [(text.rstrip(" "), spans) for (text, spans), _ in rendered(prompt, rows, where, chunk)]
        for i, ids in zip(chunk, spell.ids(texts, where, chunk), strict=True):
            unknown += says_nothing(rows, i) or (unknown_id in ids and sum(k != unknown_id for k in ids) <= empty)
            cut += len(ids) + len(first) > limit
            ids = front_cut([*first, *ids], kept, limit)
            if not ids:
                raise DataError(f"{where(i)}: its text and the prompt around it have no tokens at all")
            sequences.append(np.array(ids, np.int32))
    return {"input_ids": Ragged.of(sequences)}, Lost(cut, unknown, limit)


def front_cut(ids: list[int], kept: int, limit: int) -> list[int]:
    """At most `limit` of the ids: of too many, those behind the first `kept` go; the end is where the question is."""
    return ids[:kept] + ids[kept + max(0, len(ids) - limit) :]


class Speller:
    """Token ids of texts that a prompt makes, in which columns spell no control tokens.  ends: stands behind it."""

    def __init__(self, tokenizer: Any, prompt: Prompt, ends: str = "") -> None:
        self._tokenizer, self._control = tokenizer, control_ids(tokenizer)
        own = [*around(tokenizer, prompt), *ids_of(tokenizer, ends)]
        # Texts for Jinja come with broken control tokens, so that those there are are the template's.
        self._own = None if prompt.raw else sum(i in self._control for i in own)

    def ids(self, texts: Sequence[Said], where: Where, chunk: range) -> list[list[int]]:
        """Of each text."""
        plain = [text for text, _ in texts]
        encoded = self._tokenizer(plain, add_special_tokens=False, verbose=False)["input_ids"]
        return [
            self._as_data(text, spans, list(ids), where, i)
            for i, (text, spans), ids in zip(chunk, texts, encoded, strict=True)
        ]

    def _as_data(self, text: str, spans: Spans, ids: list[int], where: Where, i: int) -> list[int]:
        control, own = self._control, self._own
        if own is None or control.isdisjoint(ids) or sum(k in control for k in ids) <= own:
            return ids
        return _plain(self._tokenizer, control, text, spans, ids, own, where(i))


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
    extra = {} if left else ends_of(sequences)
    return Batch(inputs_of(tokenizer, sequences, left), labels_of(examples), 1, extra)


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
        "answer": padded(candidates, 0, left=True).repeat(len(examples), 1),
        "answer_mask": padded([[1] * len(ids) for ids in candidates], 0, left=True).repeat(len(examples), 1),
    }
    extra |= {} if left else ends_of(sequences)
    return Batch(inputs_of(tokenizer, sequences, left), labels_of(examples), len(candidates), extra)


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
    (before, _), (after, _) = ("", []), ("", [])
    if not prompt.raw:
        (before, _), (after, _) = prompt.sides(dict.fromkeys(prompt.columns, ""))
    empty = tokenizer(before + tokenizer.mask_token + after, verbose=False)["input_ids"]
    if len(empty) >= max_length:
        raise too_long(len(empty), max_length)
    encode = partial(_encode_masked, tokenizer, prompt, max_length, empty)
    return encode, Form(partial(_collate_masked, tokenizer), _scores_masked, lambda e: len(e["input_ids"]), heads)


def _encode_masked(
    tokenizer: Any, prompt: Prompt, max_length: int, empty: list[int], rows: Rows, where: Where
) -> tuple[dict[str, Column], Lost]:
    """empty: ids of the prompt without any text in it, with the mask and all special tokens."""
    control, unknown_id = control_ids(tokenizer), tokenizer.unk_token_id
    own = sum(i in control for i in empty)
    sequences: list[NDArray[np.int32]] = []
    positions: list[int] = []
    cut = unknown = 0
    for chunk in chunks(rows):
        texts, spans, ends = [], [], []
        for (before, spans_before), (after, spans_after) in rendered(prompt, rows, where, chunk):
            head = before + tokenizer.mask_token
            texts.append(head + after)
            ends.append(len(head))
            spans.append(spans_before + [(a + len(head), b + len(head)) for a, b in spans_after])
        encoded = tokenizer(texts, return_offsets_mapping=True, verbose=False)
        for i, ids, offsets, where_text, end in zip(
            chunk, encoded["input_ids"], encoded["offset_mapping"], spans, ends, strict=True
        ):
            if not prompt.raw and sum(k in control for k in ids) > own:
                text = texts[i - chunk.start]
                ids, offsets = as_data(tokenizer, control, text, where_text, ids, offsets)
            unknown += says_nothing(rows, i) or (unknown_id in ids and sum(k != unknown_id for k in ids) <= len(empty))
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
    inputs = inputs_of(tokenizer, [e["input_ids"] for e in examples], left=False)
    return Batch(inputs, labels_of(examples), 1, {"mask_position": position})


def _scores_masked(logits: Tensor, batch: Batch) -> Tensor:
    """logits [n, T, C], columns in the order of head_rows -> [n, C] at each example's mask."""
    return logits[torch.arange(len(logits)), batch.extra["mask_position"]].float()


# Classifiers


def classifier_form(tokenizer: Any, columns: Sequence[str], max_length: int) -> tuple[Encode, Form]:
    """How a model with a classification head sees one text column, or two as a pair."""
    if len(columns) > 2:
        raise ConfigError(f"task.text={list(columns)}: a classifier takes one text column, or two as a pair")
    empty = len(tokenizer(*[""] * len(columns), verbose=False)["input_ids"])  # special tokens
    if empty >= max_length:
        raise too_long(empty, max_length)
    encode = partial(_encode_classifier, tokenizer, list(columns), max_length, empty)
    return encode, Form(partial(_collate_classifier, tokenizer), _scores_classifier, lambda e: len(e["input_ids"]))


def _encode_classifier(
    tokenizer: Any, columns: list[str], max_length: int, empty: int, rows: Rows, where: Where
) -> tuple[dict[str, Column], Lost]:
    names = [name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names]
    control, unknown_id = control_ids(tokenizer), tokenizer.unk_token_id
    sequences: dict[str, list[Any]] = {name: [] for name in names}
    cut = unknown = 0

    def encoded(texts: Sequence[Sequence[str]], **options: Any) -> Any:
        return tokenizer(*texts, return_special_tokens_mask=True, split_special_tokens=True, verbose=False, **options)

    for chunk in chunks(rows):
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
            unknown += says_nothing(rows, i) or (unknown_id in ids and sum(j != unknown_id for j in ids) <= empty)
            cut += len(ids) >= max_length and len(encoded(own)["input_ids"][0]) > len(ids)
        for name in names:
            sequences[name] += [np.array(ids, np.int32) for ids in found[name]]
    return {name: Ragged.of(values) for name, values in sequences.items()}, Lost(cut, unknown, max_length)


def _collate_classifier(tokenizer: Any, examples: Sequence[Example]) -> Batch:
    inputs = inputs_of(tokenizer, [e["input_ids"] for e in examples], left=False)
    if "token_type_ids" in examples[0]:
        inputs["token_type_ids"] = padded([e["token_type_ids"] for e in examples], 0, left=False)
    return Batch(inputs, labels_of(examples))


def _scores_classifier(logits: Tensor, batch: Batch) -> Tensor:
    return logits.float()
