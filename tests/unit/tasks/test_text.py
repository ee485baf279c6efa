"""Losses of text tasks against a plain oracle that scores one unpadded candidate at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from hpcfed.config import ModelConfig
from hpcfed.errors import ConfigError
from hpcfed.model import load_model, load_processor
from hpcfed.tasks.text import _shortened
from tests.support.small import save_tiny_folder, tiny_model, tiny_sst2, tiny_tokenizer, write_jsonl
from tests.support.tasks import logits_of, open_model, open_task

LONG = ["terrible", "great indeed"]  # one token and several


def oracle_scores(model, tokenizer, prompt: str, candidates: list[str]) -> torch.Tensor:
    """Mean log-probability per token of each candidate after the prompt, one forward pass each, no padding."""
    scores = []
    for candidate in candidates:
        before = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        answer = tokenizer(f" {candidate}", add_special_tokens=False)["input_ids"]
        logs = model(input_ids=torch.tensor([before + answer])).logits[0].log_softmax(-1)
        scores.append(torch.stack([logs[len(before) - 1 + i, token] for i, token in enumerate(answer)]).mean())
    return torch.stack(scores)


@pytest.mark.parametrize("kind", ["opt", "llama"])
@pytest.mark.parametrize("verbalizers", [None, LONG])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_causal_loss_is_the_cross_entropy_over_the_candidates(tmp_path, kind, verbalizers, adds_bos):
    folder, data = save_tiny_folder(tmp_path, kind, adds_bos=adds_bos), tiny_sst2(tmp_path)
    bos = "auto" if adds_bos else True  # else the tokenizer puts none there
    task = open_task(folder, name="sst2", data=str(data), verbalizers=verbalizers, bos=bos)
    model, tokenizer = open_model(folder, task), AutoTokenizer.from_pretrained(folder)
    examples = [task.train[i] for i in range(8)]
    batch = task.collate(examples)
    assert len({len(e["input_ids"]) for e in examples}) > 1  # padding is at work
    assert batch.rows_per_example == (1 if verbalizers is None else 2)
    found = task.losses(logits_of(model, task, batch), batch)

    guesses = task.form.scores(logits_of(model, task, batch), batch).argmax(-1)
    for example, loss, guess in zip(examples, found, guesses, strict=True):
        prompt = tokenizer.decode(example["input_ids"][1:])  # what bos stands before
        assert prompt.endswith(" It was")
        scores = oracle_scores(model, tokenizer, prompt, verbalizers or ["terrible", "great"])
        torch.testing.assert_close(loss, F.cross_entropy(scores, torch.tensor(example["label"])), atol=2e-5, rtol=1e-5)
        assert guess == scores.argmax()


@pytest.mark.parametrize("verbalizers", [None, LONG])
def test_the_kept_positions_suffice(tmp_path, verbalizers):
    folder = save_tiny_folder(tmp_path, "opt")
    task = open_task(folder, name="sst2", data=str(tiny_sst2(tmp_path)), verbalizers=verbalizers)
    batch = task.collate([task.train[i] for i in range(5)])
    logits = logits_of(open_model(folder, task), task, batch)
    assert 0 < task.keep_last < logits.shape[1] and (task.keep_last == 1) == (verbalizers is None)
    assert torch.equal(task.losses(logits, batch), task.losses(logits[:, -task.keep_last :], batch))


@pytest.mark.parametrize("kind", ["opt", "llama", "roberta"])
@pytest.mark.parametrize("form", ["prompt", "head"])
def test_an_example_costs_the_same_whoever_it_is_padded_with(tmp_path, kind, form):
    folder = save_tiny_folder(tmp_path, kind)
    task = open_task(folder, name="sst2", data=str(tiny_sst2(tmp_path)), form=form)
    model = open_model(folder, task, form=form)
    batch = task.collate([task.train[i] for i in range(8)])
    together = task.losses(logits_of(model, task, batch), batch)
    for i in range(8):
        alone = task.collate([task.train[i]])
        loss = task.losses(logits_of(model, task, alone), alone)[0]
        torch.testing.assert_close(loss, together[i], atol=2e-5, rtol=1e-5)


def test_a_masked_loss_is_read_at_the_mask(tmp_path):
    folder = save_tiny_folder(tmp_path, "roberta")
    rows = [{"sentence": "the <mask> film and the plot", "label": 1}, {"sentence": "dull", "label": 0}]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    task = open_task(folder, name="sst2", data=str(data), eval_splits=["train"])
    model, tokenizer = open_model(folder, task), tiny_tokenizer("roberta")
    batch = task.collate([task.train[0], task.train[1]])
    found = task.losses(logits_of(model, task, batch), batch)
    for row, loss in zip(rows, found, strict=True):
        ids = tokenizer(f"{row['sentence']} It was <mask>.")["input_ids"]
        if "<mask>" in row["sentence"]:  # which is text there
            plain = tokenizer("<mask>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
            first = ids.index(tokenizer.mask_token_id)
            ids[first : first + 1] = plain
        (at,) = (i for i, token in enumerate(ids) if token == tokenizer.mask_token_id)
        words = [tokenizer(f" {w}", add_special_tokens=False)["input_ids"][0] for w in ("terrible", "great")]
        scores = model(input_ids=torch.tensor([ids])).logits[0, at, words]
        torch.testing.assert_close(loss, F.cross_entropy(scores, torch.tensor(row["label"])), atol=2e-5, rtol=1e-5)


def test_pairs_lose_the_end_of_the_longer_text_and_keep_the_mask(tmp_path):
    folder = save_tiny_folder(tmp_path, "roberta")
    row = {"premise": "film " * 60 + ".", "hypothesis": "the story is dull", "label": 2}
    data = write_jsonl(tmp_path / "train.jsonl", [row])
    task = open_task(folder, name="cb", data=str(data), eval_splits=["train"], max_length=32)
    example, tokenizer = task.train[0], tiny_tokenizer("roberta")
    assert len(example["input_ids"]) == 32
    assert example["input_ids"][example["mask_position"]] == tokenizer.mask_token_id
    assert tokenizer.decode(example["input_ids"], skip_special_tokens=True).endswith("the story is dull")


def test_a_long_causal_example_loses_its_beginning_and_keeps_bos_and_the_question(tmp_path):
    folder = save_tiny_folder(tmp_path, "opt")
    row = {"premise": "film " * 100, "hypothesis": "the story is dull", "label": 2}
    data = write_jsonl(tmp_path / "train.jsonl", [row])
    task = open_task(folder, name="cb", data=str(data), eval_splits=["train"], max_length=120)
    ids, tokenizer = task.train[0]["input_ids"], tiny_tokenizer("opt")
    assert ids[0] == tokenizer.bos_token_id and len(ids) == 119
    assert tokenizer.decode(ids).endswith('"the story is dull"? Yes, No, or Maybe?\n')
    assert len(task.head_rows) == 3  # " Yes" and "Yes" are different words; here it stands at the start of a line


def test_a_pair_for_a_classifier_is_shortened_longest_first(tmp_path):
    folder = save_tiny_folder(tmp_path, "roberta", head="sequence-classification", labels=3)
    row = {"premise": "film " * 60, "hypothesis": "the story", "label": 2}
    data = write_jsonl(tmp_path / "train.jsonl", [row])
    task = open_task(folder, name="cb", data=str(data), eval_splits=["train"], max_length=24)
    ids = list(task.train[0]["input_ids"])
    second = tiny_tokenizer("roberta")("the story", add_special_tokens=False)["input_ids"]
    assert len(ids) == 24 and ids[-len(second) - 1 : -1] == second


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("roberta", {"verbalizers": ["terrible", "incomprehensible"]}, ["'incomprehensible'", "tokens", "needs one"]),
        ("opt", {"verbalizers": ["terrible"]}, ["2 classes"]),
        ("opt", {"verbalizers": ["great", "great"]}, ["'great'", "same tokens"]),
        ("opt", {"prompt": "{sentense} It was {verbalizer}"}, ["{sentense}", "did you mean sentence?"]),
        ("opt", {"prompt": "{sentence} It was"}, ["{verbalizer} exactly once"]),
        ("opt", {"prompt": "{sentence} is {verbalizer}, no?"}, ["left to right"]),
        ("opt", {"prompt": "{sentence:loud} is {verbalizer}"}, ["unknown form", "lower"]),
        ("opt", {"prompt": "{sentence} is{verbalizer}"}, ["does not continue the prompt"]),
        ("opt", {"prompt": "{sentence!r} is {verbalizer}"}, ["{sentence!r} has an unknown form"]),
        ("opt", {"prompt": "{sentence} is {verbalizer:lower}"}, ["{verbalizer} takes no form"]),
        ("opt", {"prompt": "It was {verbalizer}"}, ["nothing of an example", "{sentence}"]),
        ("opt", {"verbalizers": ["great", "</s>"]}, ["'</s>' is a control token"]),
        ("roberta", {"verbalizers": ["great", "</s>"]}, ["'</s>'"]),
        ("roberta", {"form": "head", "max_length": 2}, ["task.max_length=2", "too short"]),
        ("opt", {"max_length": 3}, ["task.max_length=3", "too short"]),
        ("opt", {"max_length": 4096}, ["only 128 positions"]),
        ("roberta", {"max_length": 129}, ["only 128 positions"]),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, kind, settings, words):
    folder, data = save_tiny_folder(tmp_path, kind), tiny_sst2(tmp_path)
    with pytest.raises(ConfigError) as raised:
        open_task(folder, name="sst2", data=str(data), **settings)
    assert all(word in str(raised.value) for word in words), raised.value


def test_a_tokenizer_without_pad_token_names_the_setting_that_cures_it(tmp_path):
    folder, data = save_tiny_folder(tmp_path, "llama", pad=False), tiny_sst2(tmp_path)
    with pytest.raises(ConfigError, match=r"no pad token.*model.pad_token='</s>'"):
        open_task(folder, name="sst2", data=str(data))
    with pytest.raises(ConfigError, match="'<nothing>' is no token"):
        open_task(folder, name="sst2", data=str(data), pad_token="<nothing>")
    padded = open_task(folder, name="sst2", data=str(data), pad_token="</s>")
    model = load_model(ModelConfig(name=str(folder), pad_token="</s>"), "causal-lm")
    batch = padded.collate([padded.train[i] for i in range(4)])
    assert torch.isfinite(padded.losses(logits_of(model, padded, batch), batch)).all()


def test_tokens_count_rows_times_length(tmp_path):
    folder, data = save_tiny_folder(tmp_path, "opt"), str(tiny_sst2(tmp_path))
    single, several = (open_task(folder, name="sst2", data=data, verbalizers=v) for v in (None, LONG))
    length = len(single.train[0]["input_ids"])
    assert single.tokens(single.train[0]) == length
    batch = several.collate([several.train[0]])
    assert several.tokens(several.train[0]) == batch.inputs["input_ids"].numel()


def test_positions_of_roberta_leave_out_the_padding_offset(tmp_path):
    folder = save_tiny_folder(tmp_path, "roberta")
    assert load_processor(ModelConfig(name=str(folder)), "masked-lm").model_max_length == 128
    assert tiny_model("roberta").config.max_position_embeddings == 130


def test_only_tokens_inside_the_columns_are_dropped_from_the_longest_end():
    offsets = [(0, 0), (0, 2), (2, 4), (4, 6), (6, 7), (7, 9), (9, 11), (11, 12), (0, 0)]
    spans = [(0, 6), (7, 11)]
    assert _shortened(offsets, spans, 9) == list(range(9))
    assert _shortened(offsets, spans, 8) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert _shortened(offsets, spans, 4) == [0, 4, 7, 8]
    assert _shortened(offsets, spans, 2) == [0, 4, 7, 8]  # no shorter than the words around the columns
