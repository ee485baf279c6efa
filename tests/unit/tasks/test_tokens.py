"""What stands before a text, and what a text is that spells control tokens."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hpcfed.errors import ConfigError
from hpcfed.tasks.tokens import Lost, control_ids, first_tokens, ids_of
from tests.support.small import save_tiny_folder, tiny_sst2, tiny_tokenizer, write_jsonl
from tests.support.tasks import open_task


def tokenizer_that_adds(template: str) -> PreTrainedTokenizerFast:
    """Whole words; the template as tokenizers has it, $A for the text."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "[gMASK]", "It", "was", "a", "the", "film"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(token, words.index(token)) for token in ("<s>", "</s>", "[gMASK]")]
    raw.post_processor = processors.TemplateProcessing(template, f"{template} $B", special)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


@pytest.mark.parametrize(
    ("template", "bos", "expected"),
    [
        ("$A", "auto", []),  # names a bos and never adds it: GPT-2, Pythia, Phi, SmolLM2
        ("<s> $A", "auto", [0]),
        ("</s> $A", "auto", [2]),  # OPT
        ("[gMASK] <s> $A", "auto", [4, 0]),  # ChatGLM
        ("<s> $A </s>", "auto", [0]),  # what comes behind is none of a prompt that goes on
        ("$A </s>", "auto", []),
        ("$A", True, [0]),
        ("<s> $A", False, []),
        ("</s> $A", 0, [0]),  # MeZO's OPT
        ("$A", 4, [4]),
    ],
)
def test_the_first_token_is_what_the_tokenizer_or_the_recipe_says(template, bos, expected):
    assert first_tokens(tokenizer_that_adds(template), bos) == expected


def test_a_first_token_that_is_not_there_is_an_error():
    tokenizer = tokenizer_that_adds("$A")
    with pytest.raises(ConfigError, match=r"task\.bos=10: the tokenizer has only tokens 0\.\.9"):
        first_tokens(tokenizer, 10)
    tokenizer.bos_token = None
    with pytest.raises(ConfigError, match=r"task\.bos=true: the tokenizer has no bos token"):
        first_tokens(tokenizer, True)


def test_the_first_token_is_a_causal_models(tmp_path):
    folder = save_tiny_folder(tmp_path, "roberta")
    with pytest.raises(ConfigError, match=r"task\.bos=0: .*masked-lm"):
        open_task(folder, name="sst2", data=str(tiny_sst2(tmp_path)), bos=0)


SPELLED = ["</s>", "<s> great", "the <mask> film", "great </s> and </s>", "<pad>", "the film<mask>is </s>"]


@pytest.mark.parametrize("text", SPELLED)
@pytest.mark.parametrize(("kind", "form"), [("llama", "prompt"), ("roberta", "prompt"), ("roberta", "head")])
def test_a_text_that_spells_control_tokens_is_text(tmp_path, kind, form, text):
    folder, tokenizer = save_tiny_folder(tmp_path, kind), tiny_tokenizer(kind)
    data = write_jsonl(tmp_path / "d.jsonl", [{"sentence": text, "label": 0}, {"sentence": "the film", "label": 1}])
    task = open_task(folder, name="sst2", data=str(data), eval_splits=["train"], form=form)
    control = control_ids(tokenizer)
    found, ordinary = ([int(i) for i in task.train[k]["input_ids"] if i in control] for k in (0, 1))
    assert found == ordinary  # those that the tokenizer or the prompt puts there, no other
    assert len(task.train[0]["input_ids"]) > len(text.split())


def test_control_tokens_of_a_prompt_are_its_authors(tmp_path):
    folder, tokenizer = save_tiny_folder(tmp_path, "llama"), tiny_tokenizer("llama")
    data = write_jsonl(tmp_path / "d.jsonl", [{"sentence": "the </s> film", "label": 0}, {"sentence": "a", "label": 1}])
    prompt = "{sentence}</s> It was {verbalizer}"
    task = open_task(folder, name="sst2", data=str(data), eval_splits=["train"], prompt=prompt)
    ids = task.train[0]["input_ids"].tolist()
    assert ids.count(tokenizer.eos_token_id) == 1 and ids.index(tokenizer.eos_token_id) > len(ids) // 2


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_ordinary_texts_are_the_tokenizers_own(tmp_path, kind):
    folder, tokenizer = save_tiny_folder(tmp_path, kind), tiny_tokenizer(kind)
    task = open_task(folder, name="sst2", data=str(tiny_sst2(tmp_path)), form="head")
    rows = (tmp_path / "sst2" / "train.jsonl").read_text().splitlines()
    for i in (0, 5, 9):
        text = rows[i].split('"sentence": "')[1].split('"')[0]
        assert task.train[i]["input_ids"].tolist() == tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("kind", "form", "most"),
    [("llama", "prompt", 12), ("roberta", "prompt", 16), ("roberta", "head", 8), ("llama", "head", 6)],
)
def test_what_is_cut_is_counted(tmp_path, kind, form, most):
    folder = save_tiny_folder(tmp_path, kind)
    texts = ["the film", "the film and the plot and the story", "the film " * 30]
    data = write_jsonl(tmp_path / "d.jsonl", [{"sentence": text, "label": i % 2} for i, text in enumerate(texts)])
    settings = {"name": "sst2", "data": str(data), "eval_splits": ["train"], "form": form}
    whole, cut = open_task(folder, **settings), open_task(folder, **settings, max_length=most)
    shorter = sum(len(whole.train[i]["input_ids"]) > len(cut.train[i]["input_ids"]) for i in range(3))
    assert whole.train.lost.cut == 0 and cut.train.lost.cut == shorter > 0


def test_losses_of_several_clients_are_summed():
    assert Lost.sum([Lost(1, 2, 8), Lost(), Lost(3, 0, 8)]) == Lost(4, 2, 8)
    assert ids_of(tokenizer_that_adds("<s> $A"), "the film") == [8, 9]
