"""The tasks known by name: every one asks with its own columns and a word a class, and some of them word by word."""

from __future__ import annotations

import pytest

from hpcfed.tasks.prompts import parse_prompt
from hpcfed.tasks.table import CUSTOM, TASKS

FORMS = ("causal", "masked")
ASKED = [(name, form, getattr(info, form)) for name, info in TASKS.items() for form in FORMS if getattr(info, form)]


@pytest.mark.parametrize(("name", "form", "asked"), ASKED)
def test_every_named_task_asks_with_its_own_columns_and_a_word_a_class(name, form, asked):
    info = TASKS[name]
    prompt = parse_prompt(asked.prompt, info.text)
    assert set(prompt.columns) == set(info.text)
    assert len(set(asked.verbalizers)) == len(info.labels)
    assert form == "masked" or not prompt.after or not any(p.literal or p.column for p in prompt.after)


def test_known_prompts():
    def text(name, form, **row):
        (before, _), (after, _) = parse_prompt(getattr(TASKS[name], form).prompt, TASKS[name].text).sides(row)
        return f"{before}*{after}"

    assert text("sst2", "causal", sentence="a fine film .") == "a fine film . It was *"
    assert text("sst2", "masked", sentence="a fine film .") == "a fine film . It was *."
    pair = {"premise": "He left.", "hypothesis": "He is gone."}
    assert text("cb", "causal", **pair) == 'Suppose He left. Can we infer that "He is gone."? Yes, No, or Maybe?\n*'
    assert text("mnli", "masked", **pair) == "He left? *, he is gone."
    pair = {"sentence1": "He left.", "sentence2": "He is gone."}
    assert text("rte", "causal", **pair) == 'He left.\nDoes this mean that "He is gone." is true? Yes or No?\n*'
    assert text("boolq", "causal", passage="Ice melts.", question="does ice melt") == "Ice melts. Does ice melt?\n*"
    assert text("trec", "masked", text="Who ?") == "*: Who ?"
    row = {"text": "Ann met Bo and She left.", "span1_text": "Ann", "span2_text": "She"}
    asked = 'In the previous sentence, does the pronoun "she" refer to Ann? Yes or No?'
    assert text("wsc", "causal", **row) == f"{row['text']}\n{asked}\n*"
    row = {"word": "bank", "sentence1": "A bank.", "sentence2": "The bank."}
    asked = 'Does the word "bank" have the same meaning in these two sentences? Yes, No?'
    assert text("wic", "causal", **row) == f"{asked}\nA bank.\nThe bank.\n*"
    row = {"paragraph": "Ice melts.", "question": "What melts?", "answer": "Ice"}
    asked = 'Question: What melts?\nI found this answer "Ice". Is that correct? Yes or No?'
    assert text("multirc", "causal", **row) == f"Ice melts.\n{asked}\n*"


@pytest.mark.parametrize("name", TASKS)
def test_a_named_task_has_classes_and_splits_of_different_names(name: str):
    info = TASKS[name]
    assert len(set(info.labels)) == len(info.labels) and "train" not in info.eval_splits and name != CUSTOM
    assert (info.data is None) == (name in ("digits", "natural-instructions"))
    assert (len(info.labels) >= 2) == (info.open is None)
    assert bool(info.text) == (info.causal is not None or info.open is not None)
    assert info.eval_splits or info.held_out or name == "alpaca"  # which has a training split alone


def test_classes_are_those_of_the_data_sets():
    counts = {"digits": 10, "cifar10": 10, "cifar100": 100, "sst2": 2, "sst5": 5, "trec": 6, "rte": 2, "cb": 3}
    counts |= {"boolq": 2, "snli": 3, "mnli": 3, "wsc": 2, "wic": 2, "multirc": 2}
    assert {name: len(info.labels) for name, info in TASKS.items() if not info.open} == counts
    assert TASKS["cb"].labels != TASKS["snli"].labels and set(TASKS["cb"].labels) == set(TASKS["snli"].labels)
