"""The tasks known by name: every one asks with its own columns and a word a class, and some of them word by word."""

from __future__ import annotations

import pytest

from hpcfed.tasks.prompts import parse_prompt, render
from hpcfed.tasks.table import CUSTOM, TASKS

FORMS = ("causal", "masked")
ASKED = [(name, form, getattr(info, form)) for name, info in TASKS.items() for form in FORMS if info.text]


@pytest.mark.parametrize(("name", "form", "asked"), ASKED)
def test_every_named_task_asks_with_its_own_columns_and_a_word_a_class(name, form, asked):
    info = TASKS[name]
    prompt = parse_prompt(asked.prompt, info.text)
    used = {part.column for part in (*prompt.before, *prompt.after)} - {None}
    assert used == set(info.text)
    assert len(set(asked.verbalizers)) == len(info.labels)
    assert form == "masked" or not prompt.after or not any(p.literal or p.column for p in prompt.after)


def test_known_prompts():
    def text(name, form, **row):
        prompt = parse_prompt(getattr(TASKS[name], form).prompt, TASKS[name].text)
        return render(prompt.before, row)[0] + "*" + render(prompt.after, row)[0]

    assert text("sst2", "causal", sentence="a fine film .") == "a fine film . It was *"
    assert text("sst2", "masked", sentence="a fine film .") == "a fine film . It was *."
    pair = {"premise": "He left.", "hypothesis": "He is gone."}
    assert text("cb", "causal", **pair) == 'Suppose He left. Can we infer that "He is gone."? Yes, No, or Maybe?\n*'
    assert text("mnli", "masked", **pair) == "He left? *, he is gone."
    pair = {"sentence1": "He left.", "sentence2": "He is gone."}
    assert text("rte", "causal", **pair) == 'He left.\nDoes this mean that "He is gone." is true? Yes or No?\n*'
    assert text("boolq", "causal", passage="Ice melts.", question="does ice melt") == "Ice melts. Does ice melt?\n*"
    assert text("trec", "masked", text="Who ?") == "*: Who ?"


@pytest.mark.parametrize("name", TASKS)
def test_a_named_task_has_classes_and_splits_of_different_names(name: str):
    info = TASKS[name]
    assert len(set(info.labels)) == len(info.labels) >= 2 and info.eval_splits and "train" not in info.eval_splits
    assert (info.data is None) == (name == "digits") and name != CUSTOM
    assert bool(info.text) == (info.causal is not None) == (info.masked is not None)


def test_classes_are_those_of_the_data_sets():
    counts = {"digits": 10, "cifar10": 10, "cifar100": 100, "sst2": 2, "sst5": 5, "trec": 6, "rte": 2, "cb": 3}
    assert {name: len(info.labels) for name, info in TASKS.items()} == counts | {"boolq": 2, "snli": 3, "mnli": 3}
    assert TASKS["cb"].labels != TASKS["snli"].labels and set(TASKS["cb"].labels) == set(TASKS["snli"].labels)
