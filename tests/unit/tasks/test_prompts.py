"""Templates: where a text's columns lie in it, and braces that are meant. The named tasks' own are in test_table.py."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from hpcfed.errors import ConfigError
from hpcfed.tasks.prompts import causal_candidates, masked_candidates, parse_prompt, render


def test_spans_are_where_the_columns_lie():
    prompt = parse_prompt("a {x:lower} b {y} {verbalizer}", ["x", "y"])
    text, spans = render(prompt.before, {"x": "Xx", "y": "yyy"})
    assert text == "a xx b yyy " and [text[a:b] for a, b in spans] == ["xx", "yyy"]


def test_literal_braces():
    assert render(parse_prompt("{{{x}}} {verbalizer}", ["x"]).before, {"x": "a"})[0] == "{a} "


@pytest.mark.parametrize("word", ["zebra", "[SEP]", "film zebra"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_word_that_the_tokenizer_does_not_know_is_no_answer(word, causal):
    words = {w: i for i, w in enumerate(["[UNK]", "[SEP]", "film", "good", "bad"])}
    bare = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    bare.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]", sep_token="[SEP]")
    prompt = parse_prompt("{text} film {verbalizer}", ["text"])

    def candidates(*words):
        return causal_candidates(tokenizer, prompt, words) if causal else masked_candidates(tokenizer, words)

    assert candidates("good", "bad") == [[3], [4]]
    with pytest.raises(ConfigError, match=r"task\.verbalizers: '"):
        candidates("good", word)
