"""Templates: where a text's columns lie in it, and braces that are meant. The named tasks' own are in test_table.py."""

from __future__ import annotations

from hpcfed.tasks.prompts import parse_prompt, render


def test_spans_are_where_the_columns_lie():
    prompt = parse_prompt("a {x:lower} b {y} {verbalizer}", ["x", "y"])
    text, spans = render(prompt.before, {"x": "Xx", "y": "yyy"})
    assert text == "a xx b yyy " and [text[a:b] for a, b in spans] == ["xx", "yyy"]


def test_literal_braces():
    assert render(parse_prompt("{{{x}}} {verbalizer}", ["x"]).before, {"x": "a"})[0] == "{a} "
