"""Greedy decoding against transformers' own, and against reading everything again for every token."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from transformers import OPTForCausalLM

from hpcfed.errors import ConfigError
from hpcfed.model.decode import NOTHING, _caches, choose, make_generate
from hpcfed.model.head import restrict_head
from hpcfed.transport.row import Row
from tests.support.small import tiny_batch
from tests.support.written import WRITERS, own_answers, prompts, read_alone, writer
from tests.support.zoo import zoo_model

NO_STOP: frozenset[int] = frozenset()


@pytest.mark.parametrize("family", WRITERS)
def test_answers_are_those_of_transformers_whatever_the_batch(family):
    model, inputs = writer(family), prompts(8)
    generate = make_generate(model, Row())
    answers = generate(inputs, 12, NO_STOP)
    assert answers == own_answers(model, inputs, 12)
    assert len({tuple(answer) for answer in answers}) > 1  # otherwise the comparison proves little
    for i in range(8):
        assert generate({name: x[i : i + 1] for name, x in inputs.items()}, 12, NO_STOP) == answers[i : i + 1]
    assert make_generate(model, Row(), padding=False)(inputs, 12, NO_STOP) == answers
    assert not model.config.use_cache


@pytest.mark.parametrize("family", WRITERS)
def test_an_answer_ends_at_the_first_stop_or_after_most_tokens(family):
    model, inputs = writer(family), prompts(6)
    generate = make_generate(model, Row())
    free = generate(inputs, 10, NO_STOP)
    for stop in ({free[0][0]}, {free[1][4], free[2][7]}, {token for answer in free for token in answer[3:5]}):
        ends = [next((t for t, token in enumerate(answer) if token in stop), 10) for answer in free]
        assert generate(inputs, 10, frozenset(stop)) == [answer[:n] for answer, n in zip(free, ends, strict=True)]
    assert generate(inputs, 1, NO_STOP) == [answer[:1] for answer in free]
    assert generate(inputs, 0, NO_STOP) == [[]] * 6


@pytest.mark.parametrize("family", WRITERS)
def test_a_model_without_a_cache_writes_the_same(family):
    model, inputs = writer(family), prompts(4)
    answers, read = make_generate(model, Row())(inputs, 5, NO_STOP), []

    class Forgets(nn.Module):
        config = model.config

        def forward(self, input_ids, attention_mask, position_ids):
            read.append(input_ids.shape[1])
            return model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)

    assert make_generate(Forgets(), Row())(inputs, 5, NO_STOP) == answers
    assert read == [read[0] + t for t in range(5)]


class Forgetful(OPTForCausalLM):
    """A model whose cache is not what was read."""

    def forward(self, *args, past_key_values=None, use_cache=None, **kwargs):
        if past_key_values is not None:
            past_key_values.layers[0].values.zero_()
        return super().forward(*args, past_key_values=past_key_values, use_cache=use_cache, **kwargs)


class Failing(OPTForCausalLM):
    """A model that cannot go on from its cache."""

    def forward(self, *args, past_key_values=None, use_cache=None, **kwargs):
        if past_key_values is not None:
            raise IndexError("list index out of range")
        return super().forward(*args, use_cache=use_cache, **kwargs)


@pytest.mark.parametrize("kind", [Forgetful, Failing])
def test_a_cache_that_changes_the_answers_is_not_used(kind):
    model, inputs = writer("opt"), prompts(4)
    answers = make_generate(model, Row())(inputs, 6, NO_STOP)
    model.__class__ = kind
    _caches.pop(model)
    assert make_generate(model, Row())(inputs, 6, NO_STOP) == answers


@pytest.mark.parametrize("family", ["roberta", "bart"])
def test_models_that_read_padding_on_the_left(family):
    """They are given prompts of equal length, and count positions themselves: RoBERTa from the padding id on."""
    model, inputs = zoo_model("causal-lm", family, {}).eval().requires_grad_(False), prompts(6)
    if family == "bart":
        del inputs["position_ids"]
    right = [read_alone(model, ids[mask == 1], 6) for ids, mask in zip(*list(inputs.values())[:2], strict=True)]
    assert make_generate(model, Row(), padding=False)(inputs, 6, NO_STOP) == right
    assert make_generate(model, Row())(inputs, 6, NO_STOP) != right  # otherwise the comparison proves nothing


def test_nothing_is_read_twice_and_others_may_talk_meanwhile():
    class Talking(Row):
        inside = 0

        @contextmanager
        def peers(self):
            self.inside += 1
            yield
            self.inside -= 1

    row, model, seen = Talking(), writer("llama"), []
    model.model.embed_tokens.register_forward_pre_hook(lambda _, args: seen.append((args[0].shape[1], row.inside)))
    generate = make_generate(model, row)
    generate(prompts(3), 4, NO_STOP)  # with the trial
    seen.clear()
    generate(prompts(3), 4, NO_STOP)
    assert seen == [(seen[0][0], 1), (1, 1), (1, 1), (1, 1)]


def test_the_whole_head_writes_though_a_task_reads_a_part_of_it():
    model, inputs = writer("opt"), prompts(3)
    answers = make_generate(model, Row())(inputs, 6, NO_STOP)
    assert restrict_head(model, [7, 9])
    part = model.lm_head
    assert make_generate(model, Row())(inputs, 6, NO_STOP) == answers and model.lm_head is part


def test_the_lowest_of_the_likeliest_tokens_is_chosen_and_none_where_logits_are_not_finite():
    logits = torch.tensor([[0, 3, 3, 1], [2, 2, 2, 2], [0, torch.nan, 1, 2], [0, 1, torch.inf, 2.0]])
    logits = torch.cat([logits, torch.tensor([[-torch.inf, 5, -torch.inf, 5]])])
    assert choose(logits, Row()) == [1, 0, NOTHING, NOTHING, 1]
    many = torch.zeros(2, 50_000)
    many[:, [31_000, 44_000]] = 1
    assert choose(many, Row()) == [31_000] * 2


def test_an_answer_ends_where_the_model_gives_no_number():
    model, inputs = writer("opt"), prompts(2)
    model.lm_head = nn.Linear(32, 512)
    nn.init.constant_(model.lm_head.bias, torch.nan)
    assert make_generate(model, Row())(inputs, 5, NO_STOP) == [[], []]


def test_the_first_shard_chooses():
    class Second(Row):
        shard, shards = 1, 2

        def share(self, vector: np.ndarray) -> None:
            vector[:] = [3, 4]

    assert choose(torch.rand(2, 9), Second()) == [3, 4]


def test_an_answer_beyond_the_models_positions_is_refused():
    model, inputs = writer("opt"), tiny_batch("opt", rows=1, length=125)
    generate = make_generate(model, Row())
    assert len(generate(inputs, 4, NO_STOP)[0]) == 4
    with pytest.raises(ConfigError, match="an answer of 5 tokens to a prompt of 125 does not fit the model's 128 pos"):
        generate(inputs, 5, NO_STOP)
