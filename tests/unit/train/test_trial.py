"""How a model must be asked is found out: padding, first token, head, embedding; what fits in no way is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hpcfed.config import Recipe, load_recipe
from hpcfed.errors import ConfigError
from hpcfed.tasks import Examples, Task
from hpcfed.tasks.images import array_form
from hpcfed.train.problem import Problem, build_problem
from hpcfed.train.trial import find_way
from hpcfed.transport.row import Row
from tests.support.small import tiny_sst2, tiny_tokenizer
from tests.support.zoo import zoo_data, zoo_model, zoo_tokenizer


def recipe_of(folder: Path, data: Path, *settings: str) -> Recipe:
    return load_recipe("sst2-opt-125m", [f"model.name={folder}", f"task.data={data}", "mesh.threads=1", *settings])


def problem_of(tmp: Path, kind: str, family: str, *settings: str, **own: object) -> tuple[Problem, nn.Module]:
    folder, model = tmp / "model", zoo_model(kind, family, own)
    model.save_pretrained(folder)
    zoo_tokenizer(kind).save_pretrained(folder)
    return build_problem(recipe_of(folder, zoo_data(tmp / "data"), *settings)), model


def oracle(folder: Path, data: Path, first: list[int]) -> float:
    """Mean zero-shot loss on the validation split, by transformers alone: one text at a time, nothing padded."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    losses = []
    for line in (data / "validation.jsonl").read_text().splitlines():
        row = json.loads(line)
        ids = [*first, *tokenizer(f"{row['sentence']} It was")["input_ids"]]
        words = [tokenizer(f" {w}", add_special_tokens=False)["input_ids"][0] for w in ("terrible", "great")]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, words]
        losses.append(F.cross_entropy(logits, torch.tensor(row["label"])).item())
    return float(np.mean(losses))


@pytest.mark.parametrize(
    ("family", "adds", "bos", "first"),
    [("gpt2", False, "auto", []), ("gpt2", False, "true", [0]), ("opt", True, "auto", []), ("opt", False, "auto", []),
     ("opt", False, "true", [2]), ("opt", False, "0", [0])],
)  # fmt: skip
def test_a_zero_shot_loss_is_that_of_transformers_alone(tmp_path, family, adds, bos, first):
    zoo_model("causal-lm", family, {}).save_pretrained(tmp_path)
    tiny_tokenizer("opt" if family == "opt" else "llama", adds_bos=adds).save_pretrained(tmp_path)
    data = tiny_sst2(tmp_path / "data", train=8, validation=8)
    problem = build_problem(recipe_of(tmp_path, data, f"task.bos={bos}"))
    examples = problem.task.splits["validation"]
    batch = problem.task.collate([examples[i] for i in range(8)])
    with torch.inference_mode():
        found = problem.task.losses(problem.forward(batch.inputs), batch).mean()
    assert abs(float(found) - oracle(tmp_path, data, first)) < 1e-5


@pytest.mark.parametrize("family", ["bart", "rwkv", "recurrent_gemma", "roberta", "pegasus", "roformer"])
@pytest.mark.parametrize("words", [["terrible", "great"], ["terrible", "great story"]])
@torch.inference_mode()
def test_a_decoder_that_reads_padding_is_padded_where_it_cannot_see_it(tmp_path, family, words):
    problem, _ = problem_of(tmp_path, "causal-lm", family, f"task.verbalizers={json.dumps(words)}")
    assert problem.asked.endswith("padded on the right")
    examples = [problem.task.splits["validation"][i] for i in range(4)]
    together = problem.task.collate(examples)
    losses = problem.task.losses(problem.forward(together.inputs), together)
    for example, loss in zip(examples, losses, strict=True):
        alone = problem.task.collate([example])
        torch.testing.assert_close(problem.task.losses(problem.forward(alone.inputs), alone)[0], loss)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "mistral", "bloom", "gpt_neox"])
def test_a_decoder_that_leaves_padding_out_is_padded_on_the_left(tmp_path, family):
    problem, _ = problem_of(tmp_path, "causal-lm", family)
    assert problem.asked == "the rows of the head that are read, padded on the left"


@pytest.mark.parametrize(
    ("family", "whole"), [("bart", True), ("esm", True), ("mbart", True), ("bert", False), ("roberta", False),
                          ("modernbert", False), ("deberta", False)]
)  # fmt: skip
def test_a_head_that_does_more_than_its_layer_is_computed_whole(tmp_path, family, whole):
    problem, _ = problem_of(tmp_path, "masked-lm", family, 'task.prompt="{sentence} It was {verbalizer}."')
    assert problem.asked.startswith("the whole head") == whole


@pytest.mark.parametrize("named", [3, 0, 2, 7])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
@torch.inference_mode()
def test_a_class_is_read_off_the_last_token_of_the_text(tmp_path, family, named):
    """Whatever token config.json pads with (it is `named` there, and the tokenizer's is 1)."""
    problem, model = problem_of(tmp_path, "sequence-classification", family, "task.form=head", pad_token_id=named)
    examples = [problem.task.splits["validation"][i] for i in range(4)]
    batch = problem.task.collate(examples)
    assert problem.model.config.pad_token_id == 1
    model.config.pad_token_id = None
    for example, logits in zip(examples, problem.forward(batch.inputs), strict=True):
        ids = torch.from_numpy(example["input_ids"].astype(np.int64))[None]
        torch.testing.assert_close(model(input_ids=ids).logits[0], logits)


@pytest.mark.parametrize("kind", ["causal-lm", "masked-lm", "sequence-classification"])
@pytest.mark.parametrize("what", ["pad", "word"])
def test_a_token_beyond_the_embedding_is_named(tmp_path, kind, what):
    family = "llama" if kind != "masked-lm" else "bert"
    folder, tokenizer = tmp_path / "model", zoo_tokenizer(kind)
    zoo_model(kind, family, {}).save_pretrained(folder)
    first = len(tokenizer)
    tokenizer.add_tokens([f"<new{i}>" for i in range(512 - first)])  # these have rows
    if what == "pad":
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    else:
        tokenizer.add_tokens(["the film"])
    tokenizer.save_pretrained(folder)
    data = tiny_sst2(tmp_path / "data", train=16, validation=4)
    form = ["task.form=head"] if kind == "sequence-classification" else []
    token = "pad token '<|pad|>'" if what == "pad" else "token 'the film'"
    with pytest.raises(ConfigError) as raised:
        build_problem(recipe_of(folder, data, *form))
    assert f"{token} of its tokenizer is number 512" in str(raised.value) and "rows 0 to 511" in str(raised.value)
    assert "resize_token_embeddings" in str(raised.value) and "\n" not in str(raised.value)


class Pixels(nn.Module):
    """A classifier of images that does with its batch what `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.dense = how, nn.Linear(12, 2)
        self.norm = nn.BatchNorm1d(12)

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        x = pixel_values.flatten(1)
        if self.how == "mean":
            x = x - 0.5 * x.mean(0)
        if self.how == "norm":
            x = self.norm(x)
        if self.how == "dice":
            x = x + torch.randn_like(x)
        if self.how == "fails":
            raise ValueError("wants two pictures")
        return SimpleNamespace(logits=self.dense(x))


@pytest.mark.parametrize(
    ("how", "message"),
    [("plain", None), ("norm", None), ("mean", "mixes the examples of a batch"), ("dice", "other logits for the same"),
     ("fails", "cannot be run on the task's examples .*wants two pictures")],
)  # fmt: skip
def test_a_model_whose_examples_are_not_apart_is_refused(how, message):
    pixels = np.random.default_rng(0).normal(size=(3, 3, 2, 2)).astype(np.float32)
    examples = Examples({"pixel_values": pixels}, np.array([0, 1, 0]))
    task = Task("pictures", ["a", "b"], examples, {"test": examples}, array_form())
    model, few = Pixels(how).eval(), [examples[i] for i in range(3)]
    if message is None:
        assert torch.equal(find_way("it", model, task, few, Row()).forward({"pixel_values": torch.from_numpy(pixels)}),
                           model(torch.from_numpy(pixels)).logits)  # fmt: skip
        return
    with pytest.raises(ConfigError, match=rf"model\.name='it': a Pixels model .*{message}"):
        find_way("it", model, task, few, Row())


def test_what_is_cut_is_said(tmp_path):
    problem, _ = problem_of(tmp_path, "causal-lm", "opt", "task.max_length=10")
    cut = problem.task.train.lost.cut
    assert cut and f"{cut} of 12 training examples are cut to 9 tokens (task.max_length)" in problem.notes
    private = ["privacy.mechanism=local", "privacy.epsilon=1"]
    quiet = build_problem(recipe_of(tmp_path / "model", tmp_path / "data", "task.max_length=10", *private))
    assert not any("training" in note for note in quiet.notes)
