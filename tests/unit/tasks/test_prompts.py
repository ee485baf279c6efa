"""The templates of every named task, and what of an example's text survives."""

from __future__ import annotations

import pytest

from hpcfed.tasks.prompts import parse_prompt, render
from hpcfed.tasks.table import TASKS
from hpcfed.tasks.text import _shortened

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


def test_spans_are_where_the_columns_lie():
    prompt = parse_prompt("a {x:lower} b {y} {verbalizer}", ["x", "y"])
    text, spans = render(prompt.before, {"x": "Xx", "y": "yyy"})
    assert text == "a xx b yyy " and [text[a:b] for a, b in spans] == ["xx", "yyy"]


def test_literal_braces():
    assert render(parse_prompt("{{{x}}} {verbalizer}", ["x"]).before, {"x": "a"})[0] == "{a} "


def test_only_tokens_inside_the_columns_are_dropped_from_the_longest_end():
    offsets = [(0, 0), (0, 2), (2, 4), (4, 6), (6, 7), (7, 9), (9, 11), (11, 12), (0, 0)]
    spans = [(0, 6), (7, 11)]
    assert _shortened(offsets, spans, 9) == list(range(9))
    assert _shortened(offsets, spans, 8) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert _shortened(offsets, spans, 4) == [0, 4, 7, 8]
    assert _shortened(offsets, spans, 2) == [0, 4, 7, 8]  # no shorter than the words around the columns
