"""Tasks whose answers differ from example to example, as a causal language model sees them: a prompt, then an answer.

    choices     a sequence for each of an example's candidates
    answer      one with the text that is right
    generate    the same for the loss; what is scored is what the model writes after the prompt

Formula  s_c = mean over the tokens of candidate c of log p(token | prompt, tokens before)             MeZO
         candidates: loss = -log softmax(s)[right]     answer: loss = -s_right, so that every example weighs the same
         MeZO's code pools an answer's loss over the tokens of its batch instead: there a long answer weighs more
Legend   n: examples, C: candidates of an example, rows: sequences, K: tokens of the batch's longest candidate, V:
         vocabulary
Promise  an answer has tokens of its own: one that melts into the prompt is an error, and so is one that does not fit.
         To an instruction, whose words end where its task's author says, an answer that would melt is put as it is
         read alone, which is how a model has to write it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, DataError
from .base import Batch, Column, Decoding, Example, Form, Ragged
from .metrics import Answered
from .padding import ends_of, inputs_of, labels_of, padded
from .prompts import Prompt, Template, leading
from .text import Rows, Speller, Where, around, chunks, front_cut, kept_free, rendered, says_nothing, too_long
from .tokens import Bos, Lost, broken, control_ids, ids_of

ELEMENTS = 2**24  # logits whose normaliser is computed at a time
NOTHING = float("-inf")  # the score of a candidate that an example does not have
_AT_THE_END = "a causal model reads from left to right, so the answer must be at the end; task.ends may stand behind it"


@dataclass(frozen=True, eq=False)
class Golds:
    """What is right, of n examples.  choices: texts of the candidates; of a text alone the one to train on.

    right: numbers of those that are right, the first is trained on.  references: texts that are right.
    """

    choices: Sequence[Sequence[str]]
    right: Sequence[Sequence[int]]
    references: Sequence[Sequence[str]]


@dataclass(frozen=True, eq=False)
class AnswerForm:
    """prompt: of the task.  ends: what stands after an answer: "eos", a text or "".  tail: cut what is too long there.

    setting: what messages call where candidates come from.
    """

    tokenizer: Any
    prompt: Prompt
    max_length: int
    bos: Bos
    ends: str
    tail: bool
    most: int
    setting: str

    def __post_init__(self) -> None:
        tokenizer = self.tokenizer
        if self.ends == "eos" and tokenizer.eos_token_id is None:
            raise ConfigError(
                'task.ends="eos": the model\'s tokenizer has no such token; name a text that ends an answer'
            )
        if isinstance(self.prompt, Template) and any(p.column or p.literal.strip() for p in self.prompt.after):
            raise ConfigError(f"task.prompt: {_AT_THE_END}")
        fixed = max(len(self.first) + len(around(tokenizer, self.prompt)), self.kept) + 1
        if fixed >= self.limit:
            raise too_long(fixed, self.max_length, 0 if self.tail else self.most)

    @cached_property
    def _leading(self) -> tuple[list[int], int]:
        return leading(self.tokenizer, self.prompt, self.bos)

    @property
    def first(self) -> list[int]:
        """Ids in front of the prompt."""
        return self._leading[0]

    @property
    def kept(self) -> int:
        """How many of the first tokens are never cut."""
        return self._leading[1]

    @property
    def ending(self) -> str:
        """The text that ends an answer."""
        return "" if self.ends == "eos" else self.ends

    @property
    def limit(self) -> int:
        """Most tokens of a prompt with its answer: those that the model may write are kept free."""
        return self.max_length if self.tail else self.max_length - self.most

    @property
    def stop(self) -> frozenset[int]:
        """Ids that end an answer: a text of several tokens, none of which it has for itself, is looked for in words."""
        ids = {self.tokenizer.eos_token_id} - {None}
        ending = self._after("a", self.ending)
        alone = len(ending) == 1 or not control_ids(self.tokenizer).isdisjoint(ending[:1])
        return frozenset(ids | set(ending[:1] if alone else ()))

    def decoding(self) -> Decoding:
        """How answers are written."""
        single = not self.ending or len(self.stop) > len({self.tokenizer.eos_token_id} - {None})

        def words(ids: Sequence[int]) -> str:
            text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
            return (text if single else text.partition(self.ending)[0]).strip()

        return Decoding(self.most, self.stop, words, self._prompts)

    def _after(self, before: str, text: str) -> list[int]:
        """Ids of a text behind another one, or, where they melt, alone."""
        ids, whole = ids_of(self.tokenizer, before), ids_of(self.tokenizer, before + text)
        return whole[len(ids) :] if whole[: len(ids)] == ids else ids_of(self.tokenizer, text)

    def _prompts(self, examples: Sequence[Example]) -> Batch:
        return Batch(inputs_of(self.tokenizer, [e["input_ids"] for e in examples], True), labels_of(examples))

    def _joined(self, prompt: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """A prompt and an answer, behind the prompt's first tokens cut at the front to what there is room for."""
        keep, excess = self.kept, max(0, len(prompt) + len(answer) - self.limit)
        return np.concatenate([prompt[:keep], prompt[keep + excess :], answer])

    def encode(self, rows: Rows, golds: Golds, where: Where) -> tuple[dict[str, Column], Lost, list[int]]:
        """Columns of the examples, what they lost, and the numbers of those that are kept.

        input_ids: the prompt.  answers: all candidates' ids, one after the other.  lengths: of each.  right: see Golds.
        Left out is, where a task cuts at the tail, a prompt that leaves no room for an answer.
        """
        spell, unknown_id = Speller(self.tokenizer, self.prompt), self.tokenizer.unk_token_id
        spell_all, control = Speller(self.tokenizer, self.prompt, self.ending), control_ids(self.tokenizer)
        empty, first, limit = len(around(self.tokenizer, self.prompt)), self.first, self.limit
        prompts, answers, lengths, kept = [], [], [], []
        cut = unknown = 0
        for chunk in chunks(rows):
            sides = []
            for i, (before, (after, _)) in zip(chunk, rendered(self.prompt, rows, where, chunk), strict=True):
                if after.strip():
                    raise DataError(f"{where(i)}: task.prompt: {_AT_THE_END}")
                sides.append(before)
            heads = [(text.rstrip(" "), spans) for text, spans in sides]
            asked = spell.ids(heads, where, chunk)
            whole, of = [], []
            for i, (text, spans) in zip(chunk, sides, strict=True):
                for choice in golds.choices[i]:
                    own = broken(self.tokenizer, control, choice) if self.prompt.raw else choice
                    said = (text + own).rstrip(" ")
                    whole.append((said + self.ending, [*spans, (len(text), len(said))]))
                    of.append(i)
            spelt = spell_all.ids(whole, lambda k, of=of: where(of[k]), range(len(whole)))  # type: ignore[misc]
            at = 0
            for i, prompt in zip(chunk, asked, strict=True):
                candidates = []
                for choice in golds.choices[i]:
                    candidates.append(self._answer(prompt, spelt[at], choice, where(i)))
                    at += 1
                most, prompt = max(map(len, candidates)), [*first, *prompt]
                cut += len(prompt) + most > limit
                if self.tail:
                    if len(prompt) >= limit:
                        continue
                    candidates = [ids[: limit - len(prompt)] for ids in candidates]
                elif self.kept + most >= limit:
                    raise self._no_room(where(i), most)
                prompt = front_cut(prompt, self.kept, limit)
                unknown += says_nothing(rows, i) or (
                    unknown_id in prompt and sum(k != unknown_id for k in prompt[len(first) :]) <= empty
                )
                if not prompt:
                    raise DataError(f"{where(i)}: its text and the prompt around it have no tokens at all")
                kept.append(i)
                prompts.append(np.array(prompt, np.int32))
                answers.append(np.concatenate(candidates).astype(np.int32))
                lengths.append(np.array([len(ids) for ids in candidates], np.int32))
        columns: dict[str, Column] = {
            "input_ids": Ragged.of(prompts),
            "answers": Ragged.of(answers),
            "lengths": Ragged.of(lengths),
            "right": Ragged.of([golds.right[i] for i in kept]),
        }
        return columns, Lost(cut, unknown, self.max_length), kept

    def _answer(self, prompt: list[int], whole: list[int], choice: str, where: str) -> list[int]:
        """The ids with which a candidate continues the prompt."""
        own = whole[len(prompt) :]
        if self.tail and (whole[: len(prompt)] != prompt or not own):
            plain = broken(self.tokenizer, control_ids(self.tokenizer), choice)
            whole = [*prompt, *(own := self._after("\n", plain + self.ending))]
        if whole[: len(prompt)] != prompt or not own:
            raise DataError(
                f"{where}: {self.setting} {choice!r:.60} melts into the prompt, it has no tokens of its own after it; "
                "end the prompt with a space or a new line before {answer}"
            )
        return [*own, self.tokenizer.eos_token_id] if self.ends == "eos" else own

    def _no_room(self, where: str, tokens: int) -> DataError:
        kept = kept_free(0 if self.tail else self.most)
        return DataError(
            f"{where}: {self.setting} has {tokens} tokens, which leaves no room for the prompt within "
            f"task.max_length={self.max_length}{kept}"
        )

    def forms(self, objective: str, choices: bool) -> tuple[Form, Form]:
        """How the model sees an example in training and in an evaluation."""
        loss = cross_entropy_over if objective == "candidates" else answer_loss
        answered = answered_choices if choices else answered_greedily

        def form(all_of_them: bool) -> Form:
            def sided(left: bool) -> Form:
                return Form(
                    partial(self._collate, left, all_of_them),
                    scores,
                    partial(_tokens, all_of_them),
                    loss=loss,
                    answered=answered,
                )

            return replace(sided(True), right=sided(False))

        judge = form(True)
        return (judge if objective == "candidates" else form(False)), judge

    def _collate(self, left: bool, all_of_them: bool, examples: Sequence[Example]) -> Batch:
        """extra: answer int64 [rows, K], ids right-aligned; answer_mask: where they are; of, at int64 [rows]: whose a
        row is, and which candidate; end int64 [rows], tokens of a row, where it is padded on the right.
        inputs: padded on the left answer_mask, too, which says how many of the last positions matter.
        """
        sequences, answers, of, at = [], [], [], []
        for k, example in enumerate(examples):
            candidates = np.split(example["answers"], np.cumsum(example["lengths"])[:-1])
            which = range(len(candidates)) if all_of_them else [example["label"]]
            for c, number in enumerate(which):
                sequences.append(self._joined(example["input_ids"], candidates[number]))
                answers.append(candidates[number])
                of.append(k)
                at.append(c)
        mask = padded([np.ones(len(ids), np.int64) for ids in answers], 0, left=True)
        extra = {
            "answer": padded(answers, 0, left=True),
            "answer_mask": mask,
            "of": torch.tensor(of),
            "at": torch.tensor(at),
        }
        inputs = inputs_of(self.tokenizer, sequences, left)
        inputs |= {"answer_mask": mask} if left else {}
        extra |= {} if left else ends_of(sequences)
        label = labels_of(examples) if all_of_them else torch.zeros(len(examples), dtype=torch.int64)
        return Batch(inputs, label, len(of) // len(examples), extra)


def _tokens(all_of_them: bool, example: Example) -> int:
    """Rows times their longest."""
    lengths = example["lengths"] if all_of_them else example["lengths"][example["label"] :][:1]
    return len(lengths) * (len(example["input_ids"]) + int(lengths.max()))


def _read(logits: Tensor, batch: Batch) -> Tensor:
    """[rows, K, V]: the logits one position before each of the last K tokens, which predict it."""
    longest = batch.extra["answer"].shape[1]
    if "end" not in batch.extra:
        return logits[:, -longest - 1 : -1]
    at = batch.extra["end"][:, None] - 1 - longest + torch.arange(longest, device=logits.device)
    return logits[torch.arange(len(logits), device=logits.device)[:, None], at.clamp(min=0)]


def scores(logits: Tensor, batch: Batch) -> Tensor:
    """logits [rows, positions, V], at least K + 1 positions -> [n, C] mean log-probability per token."""
    answer, mask = batch.extra["answer"], batch.extra["answer_mask"]
    read = _read(logits, batch)
    logs = []
    for part, ids in zip(*(x.split(max(1, ELEMENTS // read[0].numel())) for x in (read, answer)), strict=True):
        of_all = part.float()
        logs.append(of_all.gather(-1, ids[..., None]).squeeze(-1) - of_all.logsumexp(-1))
    mean = (torch.cat(logs) * mask).sum(-1) / mask.sum(-1)
    of, at = batch.extra["of"], batch.extra["at"]
    out = mean.new_full((len(batch.label), int(at.max()) + 1), NOTHING)
    return out.index_put((of, at), mean)


def cross_entropy_over(scores: Tensor, batch: Batch) -> Tensor:
    """float32 [n]: of each example over its own candidates."""
    return F.cross_entropy(scores, batch.label, reduction="none")


def answer_loss(scores: Tensor, batch: Batch) -> Tensor:
    """float32 [n]: minus the mean log-probability of the right answer's tokens."""
    return -scores.gather(1, batch.label[:, None]).squeeze(1)


def answered_choices(scores: Tensor, batch: Batch, logits: Tensor, labels: Sequence[str]) -> list[Answered]:
    """The candidate with the highest score, the first of equals."""
    return [
        Answered(c, example["choices"][c], tuple(int(i) for i in example["right"]), example["references"])
        for c, example in zip(scores.argmax(-1).tolist(), batch.examples, strict=True)
    ]


def answered_greedily(scores: Tensor, batch: Batch, logits: Tensor, labels: Sequence[str]) -> list[Answered]:
    """1 if each token of the right text is the most likely one, else 0."""
    guessed = _read(logits, batch).argmax(-1) == batch.extra["answer"]
    sure = (guessed | ~batch.extra["answer_mask"].bool()).all(-1).tolist()
    return [
        Answered(int(right), example["choices"][0] if right else "", (1,), example["references"])
        for right, example in zip(sure, batch.examples, strict=True)
    ]
