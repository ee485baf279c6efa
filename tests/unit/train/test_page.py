"""What a model's page says of how it was made and how it is asked."""

from __future__ import annotations

import pytest

from hpcfed.train.page import page
from tests.support.orbits import make

TOLD = {"name": "sst2", "prompt": "{sentence} It was {verbalizer}", "verbalizers": ["bad", "good"], "max_length": 64}


@pytest.mark.parametrize(
    ("kind", "task", "words"),
    [
        ("causal-lm", TOLD, ["the next word after", TOLD["prompt"], "| negative | bad |", "| positive | good |", "64"]),
        ("masked-lm", TOLD, ["the word at {verbalizer}", "| positive | good |"]),
        (
            "sequence-classification",
            {"name": "cb", "text": ["a", "b"]},
            ["task: cb", "negative, positive", "text: a, b"],
        ),
        ("image-classification", {"name": "digits"}, ["task: digits", "classes: negative, positive"]),
        ("sequence-classification", {}, ["classes: negative, positive"]),
        ("causal-lm", {"name": "own.py:TASK", "pad_token": "</s>"}, ["own.py:TASK", "padded with `</s>`"]),
        (
            "causal-lm",
            {"prompt": "{a}{answer}", "form": "choices"},
            ["an answer at the end", "the candidate whose tokens"],
        ),
        ("causal-lm", TOLD | {"bos": True}, ["first token: the tokenizer's bos"]),
        ("causal-lm", TOLD | {"bos": False}, ["first token: none"]),
        ("causal-lm", TOLD | {"bos": 1}, ["first token: number 1"]),
    ],
)
def test_a_page_says_how_a_model_is_asked(kind, task, words):
    header = make(kind=kind, task=task)
    text = page(header, 1234, "e" * 32, "hpcfed export RUN --out DIR")
    for word in [
        *words,
        "1,234 rounds",
        "feedsign",
        header.base_model,
        header.base_fingerprint,
        "e" * 32,
        "export RUN",
    ]:
        assert str(word) in text
