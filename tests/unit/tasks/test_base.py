"""Examples, batches and scores by their definitions: ragged rows, digests, padding left out, cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.tasks.base import LITTLE, Batch, Examples, Ragged, cross_entropy, of_classes
from tests.support.small import save_tiny_folder, tiny_sst2
from tests.support.tasks import open_task


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9), max_size=9))
def test_ragged_rows_are_the_sequences(sequences: list[list[int]]):
    ragged = Ragged.of(sequences)
    assert len(ragged) == len(sequences) and [ragged[i].tolist() for i in range(len(ragged))] == sequences
    assert ragged.flat.dtype == np.int32 and ragged.starts.dtype == np.int64


def test_a_digest_tells_every_change():
    ids, where, labels = Ragged.of([[1, 2], [3]]), np.array([0, 1]), np.array([1, 0])
    digest = Examples({"ids": ids, "at": where}, labels).digest()
    assert Examples({"at": where.copy(), "ids": ids}, labels.copy()).digest() == digest and len(digest) == 32
    others = [
        Examples({"ids": Ragged.of([[1], [2, 3]]), "at": where}, labels),  # the same numbers, cut elsewhere
        Examples({"ids": Ragged.of([[1, 2], [4]]), "at": where}, labels),
        Examples({"ids": ids, "at": where[::-1]}, labels),
        Examples({"ids": ids, "at": where}, labels[::-1]),
        Examples({"ids": ids, "to": where}, labels),
        Examples({"ids": ids}, labels),
    ]
    assert len({digest, *(other.digest() for other in others)}) == 1 + len(others)


def test_an_example_is_its_row_of_every_column():
    examples = Examples({"ids": Ragged.of([[1, 2], [3]]), "x": np.array([[0.5], [1.5]])}, np.array([1, 0]))
    assert examples[1]["ids"].tolist() == [3] and examples[1]["x"].tolist() == [1.5] and examples[1]["label"] == 0
    with pytest.raises(AssertionError):
        Examples({"x": np.zeros(3)}, np.array([1, 0]))


@pytest.mark.parametrize(("kind", "form"), [("opt", "prompt"), ("roberta", "prompt"), ("roberta", "head")])
def test_a_batch_knows_its_tokens_unless_padding_is_rare(tmp_path, kind, form):
    folder, data = save_tiny_folder(tmp_path, kind), tiny_sst2(tmp_path)
    task = open_task(folder, name="sst2", data=str(data), form=form)
    by_length = sorted((task.train[i] for i in range(64)), key=task.tokens)
    mixed, alike = task.collate([by_length[0], by_length[-1]]), task.collate(by_length[-1:] * 2)
    mask, real = mixed.inputs["attention_mask"].flatten(), mixed.real
    assert real is not None and 8 * len(real) < 7 * len(mask)
    assert len(real) == len(set(real.tolist())) and mask[real].sum() == mask.sum() > 15 / 16 * len(real)
    assert alike.real is None


@given(st.integers(1, 40).flatmap(lambda t: st.lists(st.integers(1, t), min_size=1, max_size=9)))
def test_every_token_is_real_and_little_else_is(lengths: list[int]):
    """Sizes fall on one of 16 an octave, so that few are ever met."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    batch = Batch({"input_ids": mask, "attention_mask": mask}, torch.zeros(len(lengths), dtype=torch.int64))
    real, count = batch.without_padding().real, int(mask.sum())
    size = next(n for n in range(count, 2 * count + 1) if n % max(1, 2 ** (count.bit_length() - 5)) == 0)
    assert (real is None) == (size > (1 - LITTLE) * mask.numel())
    if real is not None:
        assert len(real) == len(set(real.tolist())) == size < count * 17 / 16 + 1
        assert mask.flatten()[real].sum() == count


def test_images_have_no_padding_and_a_batch_stays_on_the_cpu():
    batch = Batch({"pixel_values": torch.zeros(2, 1, 4, 4)}, torch.tensor([0, 1]))
    assert batch.without_padding() is batch and batch.to("cpu") is batch


@given(st.lists(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3), min_size=1, max_size=5), st.data())
def test_losses_and_predictions_by_hand(scores: list[list[float]], data: st.DataObject):
    labels = [data.draw(st.integers(0, 2)) for _ in scores]
    batch = Batch({}, torch.tensor(labels))
    x = np.array(scores)
    by_hand = np.log(np.exp(x).sum(1)) - x[np.arange(len(x)), labels]
    np.testing.assert_allclose(cross_entropy(torch.tensor(scores), batch).numpy(), by_hand, rtol=1e-4, atol=1e-5)
    first_best = [row.index(max(row)) for row in scores]
    answers = of_classes(torch.tensor(scores), batch, [], ["x", "y"])  # the third class has no name
    assert [(a.chosen, *a.right) for a in answers] == list(zip(first_best, labels, strict=True))
    named = {0: "x", 1: "y", 2: "2"}
    assert [(a.text, *a.references) for a in answers] == [(named[a.chosen], named[a.right[0]]) for a in answers]
