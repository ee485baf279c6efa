"""Tasks with answers of examples' own, against an oracle that scores one unpadded sequence at a time."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from hpcfed.config import ModelConfig
from hpcfed.errors import ConfigError, DataError
from hpcfed.model import load_model
from hpcfed.model.decode import make_generate
from hpcfed.model.head import make_forward
from hpcfed.tasks import TASKS
from hpcfed.tasks.evaluate import answers
from hpcfed.transport.row import Row
from hpcfed.transport.solo import SoloTransport
from tests.support.open_tasks import ASKED, ROWS, long_llama, oracle
from tests.support.small import save_tiny_folder, write_jsonl
from tests.support.tasks import open_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return long_llama(tmp_path_factory.mktemp("model"))


def data_of(tmp_path, name, rows=None):
    rows = rows or ROWS[name]
    for split in {"train", *TASKS[name].eval_splits} if name in TASKS else {"train", "validation"}:
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    return str(tmp_path)


def results_of(folder, task, split):
    model = load_model(ModelConfig(name=str(folder)), "causal-lm")
    forward, generate = make_forward(model, Row(), task.keep_last, task.head_rows), make_generate(model, Row())
    return answers(forward, task, task.splits[split], 8, SoloTransport(), generate=generate), model


@pytest.mark.parametrize("name", ASKED)
def test_every_task_scores_as_the_oracle(tmp_path, folder, name):
    settings = {"held_out": {"category": ["summarization"]}} if name == "dolly" else {}
    data = data_of(tmp_path, name, ROWS[name] + ROWS[name][::-1] if name == "dolly" else None)
    task = open_task(
        folder,
        name=name,
        data=data,
        max_new_tokens=None if TASKS[name].open.form == "choices" else 4,
        **settings,
        **({} if TASKS[name].eval_splits or settings else {"eval_splits": ["train"]}),
    )
    (split,) = task.splits
    found, model = results_of(folder, task, split)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = ROWS[name] if name != "dolly" else [ROWS[name][0]] * 2
    for result, row in zip(found, rows, strict=True):
        scores, (prompt, _, right) = oracle(model, tokenizer, name, row), ASKED[name](row)
        if TASKS[name].open.objective == "candidates":
            expected = F.cross_entropy(scores, torch.tensor(right[0]))
        else:
            expected = -scores[right[0]]
        assert result.loss == pytest.approx(float(expected), abs=2e-5)
        if TASKS[name].open.form == "choices":
            assert result.answered.chosen == int(scores.argmax()) and result.answered.right == tuple(right)
            assert result.values["accuracy"] == (int(scores.argmax()) in right)
        else:
            ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
            stop = [tokenizer.eos_token_id] + tokenizer("\n", add_special_tokens=False)["input_ids"] * (
                TASKS[name].open.ends == "\n"
            )
            written = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=4,
                do_sample=False,
                eos_token_id=stop,
                pad_token_id=1,
            )[0, ids.shape[1] :]
            assert result.answered.text == tokenizer.decode(written, skip_special_tokens=True).strip()


@pytest.mark.parametrize("name", ["copa", "record", "squad"])
def test_training_sees_the_right_answer_alone(tmp_path, folder, name):
    task = open_task(folder, name=name, data=data_of(tmp_path, name), max_new_tokens=4 if name == "squad" else None)
    model = load_model(ModelConfig(name=str(folder)), "causal-lm")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    forward = make_forward(model, Row(), task.keep_last, task.head_rows)
    batch = task.collate([task.train[i] for i in range(2)])
    assert batch.inputs["input_ids"].shape[0] == 2
    for loss, row in zip(task.losses(forward(batch.inputs), batch).tolist(), ROWS[name], strict=True):
        right = ASKED[name](row)[2][0]
        assert loss == pytest.approx(-float(oracle(model, tokenizer, name, row)[right]), abs=2e-5)


@pytest.mark.parametrize(("name", "objective"), [("copa", "accuracy"), ("record", "f1"), ("arc-easy", "accuracy")])
def test_a_reward_is_of_what_the_model_chooses_among_all_candidates(tmp_path, folder, name, objective):
    task = open_task(folder, name=name, data=data_of(tmp_path, name), objective=objective)
    model, tokenizer = load_model(ModelConfig(name=str(folder)), "causal-lm"), AutoTokenizer.from_pretrained(folder)
    forward = make_forward(model, Row(), task.keep_last, task.head_rows)
    batch = task.collate([task.train[i] for i in range(2)])
    chosen = [int(oracle(model, tokenizer, name, row).argmax()) for row in ROWS[name]]
    assert [answer.chosen for answer in task.answered(forward(batch.inputs), batch)] == chosen
    if objective == "accuracy":
        right = [float(c in ASKED[name](row)[2]) for c, row in zip(chosen, ROWS[name], strict=True)]
        assert task.losses(forward(batch.inputs), batch).tolist() == [-one for one in right]


CUSTOM = {
    "choices": {"choices": ["good", "bad"], "label": "label", "prompt": "{text} It was {answer}"},
    "answer": {"label": "word", "prompt": "{text} It was {answer}", "ends": "."},
    "generate": {"label": "word", "prompt": "jinja: {{ text | upper }} It was", "max_new_tokens": 3},
}
WORDS = [
    {"text": "the film", "good": "great", "bad": "dull", "label": 1, "word": ["dull", "weak"]},
    {"text": "a plot", "good": "good", "bad": "bad", "label": "good", "word": "good"},
]


@pytest.mark.parametrize("form", CUSTOM)
def test_custom_tasks_of_each_form(tmp_path, folder, form):
    rows = (
        [{**row, "label": row["label"]} for row in WORDS] if form != "choices" else [WORDS[0], {**WORDS[1], "label": 0}]
    )
    task = open_task(folder, name="custom", data=data_of(tmp_path, "custom", rows), form=form, **CUSTOM[form])
    found, _ = results_of(folder, task, "validation")
    assert len(found) == 2 and all(result.loss > 0 for result in found)
    assert task.told["form"] == form
    if form == "generate":
        assert set(found[0].values) == {"rougeL", "f1", "em"} and found[0].answered.references == ("dull", "weak")
        assert "THE FILM It was" in AutoTokenizer.from_pretrained(folder).decode(task.train[0]["input_ids"])


LONG = "film " * 2000
BAD = {
    "a list of numbers": ("answer", {"word": [1.5]}, r"row 2: column 'word' is no text but the number 1.5"),
    "an empty list": ("answer", {"word": []}, r"row 2: column 'word' is an empty list"),
    "an empty answer": ("generate", {"word": " "}, r"row 2: column 'word' holds an empty text"),
    "a missing answer": ("answer", {"word": None}, r"row 2: column 'word' is missing"),
    "longer than the model": (
        "answer",
        {"word": LONG},
        r"row 2: column 'word': has 20\d\d\d? tokens, .*no room for the prompt",
    ),
    "a gold that is no candidate": (
        "choices",
        {"label": "boring"},
        r"row 2: column 'label' says 'boring', .*\(good, bad\)",
    ),
    "a number out of range": ("choices", {"label": 2}, r"row 2: column 'label' says 2, .*its number from 0 to 1"),
    "no gold": ("choices", {"label": None}, r"row 2: column 'label', the right candidate, is missing"),
    "an empty candidate": ("choices", {"bad": ""}, r"row 2: column 'bad' holds an empty text"),
    "a text that is a list": (
        "choices",
        {"text": ["a", "b"]},
        r"row 2: column 'text' is a list here and text in .*row 1",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_rows_are_named(tmp_path, folder, what):
    form, change, message = BAD[what]
    good = {**WORDS[1], "label": 0} if "label" not in change or isinstance(change["label"], int | None) else WORDS[1]
    data = data_of(tmp_path, "custom", [good, {**good, **change}])
    with pytest.raises(DataError, match=message):
        open_task(folder, name="custom", data=data, form=form, **(CUSTOM[form] | {"text": ["text"]}))


WRONG = {
    "no answer's place": ({"prompt": "{text} It was"}, ConfigError, r"\{answer\} exactly once"),
    "no column": ({"prompt": "It was {answer}"}, ConfigError, "shows the model nothing"),
    "a column that is not there": ({"prompt": "{txt} was {answer}"}, DataError, "no column 'txt'; did you mean text"),
    "melts": ({"prompt": "{text} gre{answer}", "choices": ["word", "text"]}, DataError, "'at' melts into the prompt"),
    "no room": ({"max_length": 3}, ConfigError, "task.max_length=3: too short"),
    "Jinja without a column": ({"prompt": "jinja: It was"}, ConfigError, "names no column"),
    "Jinja that is none": ({"prompt": "jinja: {{ text"}, ConfigError, "no Jinja template: .*line 1"),
    "Jinja that leaves its sandbox": (
        {"prompt": "jinja: {{ text.__class__.__mro__ }}"},
        DataError,
        r"row 1: task.prompt: Jinja says SecurityError",
    ),
    "text behind the answer": ({"prompt": "{text} was {answer} ."}, ConfigError, "the answer must be at the end"),
    "Jinja text behind the answer": (
        {"prompt": "jinja: {{ text }} was {{ answer }} ."},
        DataError,
        "row 1: task.prompt: .*the answer must be at the end",
    ),
    "Jinja with two answers": (
        {"prompt": "jinja: {{ text }} {{ answer }} {{ answer }}"},
        DataError,
        r"row 1: task.prompt: shows {{ answer }} more than once",
    ),
    "Jinja that writes what is missing": (
        {"prompt": "jinja: {{ text }} {{ none }}"},
        DataError,
        "row 1: .*a value is missing where it is written",
    ),
    "Jinja that writes a list": (
        {"prompt": "jinja: {{ text }} {{ list }}"},
        DataError,
        r"row 1: .*\['a', 'b'\] is a list; loop",
    ),
    "Jinja that draws": ({"prompt": "jinja: {{ list | random }}"}, ConfigError, "No filter named 'random'"),
    "no room for what is written": (
        {"form": "generate", "choices": None, "label": "word", "max_new_tokens": 1020},
        ConfigError,
        "of which task.max_new_tokens=1020 are kept free: too short",
    ),
    "Jinja of a column that is not there": ({"prompt": "jinja: {{ txt }}"}, DataError, "no column 'txt'"),
    "no chat template": ({"chat": True}, ConfigError, "task.chat=true: .*no chat template"),
    "a metric that is not there": (
        {"metrics": ["f2"]},
        ConfigError,
        "task.metrics='f2' is no metric .known: accuracy, em, f1,",
    ),
    "a metric of texts": (
        {"objective": "candidates", "form": "generate", "choices": None},
        ConfigError,
        "no candidates",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_settings_are_named(tmp_path, folder, what):
    change, error, message = WRONG[what]
    more = {"none": None, "list": ["a", "b"]}
    data = data_of(tmp_path, "custom", [{**WORDS[0], "word": "at", **more}, {**WORDS[1], "label": 0, **more}])
    settings = {"form": "choices", **CUSTOM["choices"]} | change
    with pytest.raises(error, match=message):
        open_task(folder, name="custom", data=data, **settings)


def test_what_a_text_spells_is_no_control_token(tmp_path, folder):
    rows = [{**WORDS[0], "text": "the </s> film", "label": 0}] * 2
    for prompt in ("{text} It was {answer}", "jinja: {{ text }} It was"):
        task = open_task(
            folder,
            name="custom",
            data=data_of(tmp_path, "custom", rows),
            form="choices",
            **(CUSTOM["choices"] | {"prompt": prompt}),
        )
        assert 2 not in task.train[0]["input_ids"].tolist()


def test_what_an_answer_spells_is_no_control_token_but_what_ends_it_may_be(tmp_path, folder):
    rows = [{**WORDS[0], "good": "the </s> film", "label": 0}] * 2
    for prompt in ("{text} It was {answer}", "jinja: {{ text }} It was"):
        settings = {"form": "choices", **CUSTOM["choices"], "prompt": prompt, "ends": "</s>"}
        task = open_task(folder, name="custom", data=data_of(tmp_path, "custom", rows), **settings)
        good, bad = np.split(task.train[0]["answers"], np.cumsum(task.train[0]["lengths"])[:-1])
        assert good.tolist().count(2) == bad.tolist().count(2) == 1 and good[-1] == bad[-1] == 2


def test_an_answer_ends_where_all_of_the_text_is_that_ends_it(tmp_path, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = {"form": "generate", **CUSTOM["answer"], "ends": "END"}
    task = open_task(folder, name="custom", data=data_of(tmp_path, "custom", WORDS), **settings)
    said = tokenizer("a D film END good", add_special_tokens=False)["input_ids"]
    assert len(tokenizer("END", add_special_tokens=False)["input_ids"]) == 3
    assert task.decoding.stop == {2} and task.decoding.words(said) == "a D film"


def test_a_character_of_the_data_is_not_the_answers_place(tmp_path, folder):
    rows = [{**WORDS[0], "text": "the \uf8ff film", "label": 0}] * 2
    settings = {"form": "choices", **CUSTOM["choices"], "prompt": "jinja: {{ text }} It was"}
    task = open_task(folder, name="custom", data=data_of(tmp_path, "custom", rows), **settings)
    assert AutoTokenizer.from_pretrained(folder).decode(task.train[0]["input_ids"]) == "<s>the \uf8ff film It was"


def test_an_instruction_may_be_answered_with_what_melts_into_its_last_word(tmp_path, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([":-"])
    (tmp_path / "model").mkdir()
    model = shutil.copytree(folder, tmp_path / "model" / "llama")
    tokenizer.save_pretrained(model)
    rows = [{"instruction": "a film", "input": "", "output": said} for said in ("- good", "bad")]
    data = data_of(tmp_path / "data", "alpaca", rows)
    task = open_task(model, name="alpaca", data=data, eval_splits=["train"])
    plain = open_task(folder, name="alpaca", data=data, eval_splits=["train"])
    for i in range(2):
        assert task.train[i]["input_ids"].tolist() == plain.train[i]["input_ids"].tolist()
        assert task.train[i]["answers"].tolist() == plain.train[i]["answers"].tolist()


def test_rows_without_a_label_or_an_input_and_answers_alike_behind_letters(tmp_path, folder):
    copa, record, mmlu, alpaca = (ROWS[name] for name in ("copa", "record", "mmlu", "alpaca"))
    for name, rows in {
        "copa": [*copa, {**copa[0], "label": -1}],
        "record": [*record, {**record[0], "answers": []}],
    }.items():
        task = open_task(folder, name=name, data=data_of(tmp_path / name, name, rows))
        assert task.readings["train"].left_out == {"no label": 1} and len(task.splits["validation"]) == 2
    texts = [{**row, "label": f"{row['label']}"} for row in [*copa, {**copa[0], "label": "-1"}]]
    assert len(open_task(folder, name="copa", data=data_of(tmp_path / "texts", "copa", texts)).train) == 2
    twins = [{**mmlu[0], "choices": ["a", "b", "a", "a"]}, mmlu[1]]
    assert len(open_task(folder, name="mmlu", data=data_of(tmp_path / "mmlu", "mmlu", twins)).train) == 2
    data = data_of(tmp_path / "alpaca", "alpaca", [{**alpaca[0], "input": None}, alpaca[1]])
    assert "### Input" not in shown_first(open_task(folder, name="alpaca", data=data, eval_splits=["train"]), folder)


def shown_first(task, folder):
    return AutoTokenizer.from_pretrained(folder).decode(task.train[0]["input_ids"])


def test_a_named_task_without_positions_for_its_answers_says_so(tmp_path):
    small = save_tiny_folder(tmp_path / "model", "llama")
    with pytest.raises(ConfigError, match=r"task.max_new_tokens=128: the model has only 128 positions"):
        open_task(small, name="alpaca", data=data_of(tmp_path / "d", "alpaca"), eval_splits=["train"])


_OF_ALL = "{% for m in messages %}U: %s{% endfor %}{{ 'A:' }}"
CHATS = {  # template: (how a long example begins that is cut, what a short one is)
    "<s>" + _OF_ALL.replace("%s", "{{ m.content }}"): ("<s>U: ", "<s>U:  a plot It wasA:"),
    "<s>" + _OF_ALL.replace("%s", "{{ m.content | trim }}"): ("<s>U: ", "<s>U: a plot It wasA:"),
    "S: is " + _OF_ALL.replace("%s", "{{ m.content }}"): ("S: is U: ", "S: is U:  a plot It wasA:"),
}


def chatting(folder, tmp_path, template):
    model = shutil.copytree(folder, tmp_path / "model" / "llama")
    file = model / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
    return model


@pytest.mark.parametrize("template", CHATS)
@pytest.mark.parametrize("form", ["choices", "prompt"])
def test_a_chat_is_what_the_template_makes_and_keeps_its_opening(tmp_path, folder, template, form):
    model, (long, short) = chatting(folder, tmp_path, template), CHATS[template]
    rows = [{**WORDS[0], "text": "film" + " film" * 90, "label": 0}, {**WORDS[1], "label": 1}]
    settings = {
        "choices": {**CUSTOM["choices"], "prompt": "jinja:  {{ ' ' + text }} It was"},
        "prompt": {"text": ["text"], "prompt": " {text} It was {verbalizer}", "verbalizers": ["bad", "good"]},
    }
    data = data_of(tmp_path / "data", "custom", rows)
    task = open_task(model, name="custom", data=data, form=form, chat=True, max_length=50, **settings[form])
    tokenizer = AutoTokenizer.from_pretrained(model)
    cut, whole = (tokenizer.decode(task.train[i]["input_ids"]) for i in range(2))
    assert cut.startswith(long) and cut.endswith("film It wasA:")
    assert whole == short
    first = open_task(model, name="custom", data=data, form=form, chat=True, bos=True, **settings[form])
    ids = first.train[1]["input_ids"].tolist()
    assert ids.count(0) == 1 and ids[0] == 0


@pytest.mark.parametrize(
    ("template", "bos", "message"),
    [
        ("<s>{% for m in messages %}{{ m.content }}{% endfor %}", False, "task.bos=false: the chat template itself"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "auto", "does not say once, as it is"),
        ("{% for m in messages %}{{ m.content + m.content }}{% endfor %}", "auto", "does not say once, as it is"),
        ("{{ raise_exception('no') }}", "auto", "chat template fails: no"),
    ],
)
def test_a_chat_template_that_does_otherwise_is_refused(tmp_path, folder, template, bos, message):
    model = chatting(folder, tmp_path, template)
    data = data_of(tmp_path / "data", "custom", [{**row, "label": 0} for row in WORDS])
    with pytest.raises(ConfigError, match=message):
        open_task(model, name="custom", data=data, form="choices", chat=True, bos=bos, **CUSTOM["choices"])


def test_a_prompt_of_classes_may_loop_over_what_the_rows_hold(tmp_path, folder):
    rows = [{"said": [{"text": "a film"}, {"text": "a plot"}], "label": i} for i in (0, 1)]
    prompt = "jinja: {% for s in said %}{{ s.text }}\n{% endfor %}It was"
    settings = {"form": "prompt", "prompt": prompt, "verbalizers": ["bad", "good"]}
    task = open_task(folder, name="custom", data=data_of(tmp_path, "custom", rows), **settings)
    assert shown_first(task, folder) == "<s>a film\na plot\nIt was"


def test_a_long_prompt_loses_its_beginning_and_an_instruction_its_end(tmp_path, folder):
    long = [{**ROWS["squad"][0], "context": "film " * 2000}] * 2
    task = open_task(folder, name="squad", data=data_of(tmp_path, "squad", long))
    ids = task.train[0]["input_ids"]
    assert len(ids) == 1024 - 50 and ids[0] == 0 and task.train.lost.cut == 2
    answer = [ROWS["alpaca"][0] | {"output": "film " * 2000}, ROWS["alpaca"][1] | {"instruction": "film " * 2000}]
    task = open_task(folder, name="alpaca", data=data_of(tmp_path / "a", "alpaca", answer), eval_splits=["train"])
    whole = len(task.train[0]["input_ids"]) + len(task.train[0]["answers"])
    assert len(task.train) == 1 and whole == 1024 - 128 and 2 not in task.train[0]["answers"].tolist()
    assert task.readings["train"].left_out == {"no room for the answer": 1}


def test_candidates_that_read_alike_are_right_alike(tmp_path, folder):
    rows = [{**WORDS[0], "good": "dull"}, {**WORDS[1], "label": 0}]
    task = open_task(folder, name="custom", data=data_of(tmp_path, "custom", rows), form="choices", **CUSTOM["choices"])
    assert task.train[0]["right"].tolist() == [1, 0] and task.train[0]["label"] == 1
    row = ROWS["mmlu"][0] | {"choices": ["good", "good", "bad", "good"]}
    task = open_task(folder, name="mmlu", data=data_of(tmp_path / "m", "mmlu", [row] * 2))
    assert task.train[0]["right"].tolist() == [2]  # the letters differ
