"""Rows of the tasks whose answers differ from example to example, in the hub's columns, and how the papers ask them.

ROWS[name]                 a few rows of the test's own
ASKED[name](row)           (prompt, candidates, numbers of the right ones); of generated answers one candidate, with
                           what ends it
ENDS[name]                 "eos", a text, or "" for what ends an answer
oracle(model, tokenizer, name, row)    score of each candidate, one unpadded sequence at a time, by transformers alone
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.support.small import named, save_tiny_folder

_PAIR = "Below is an instruction that describes a task, paired with an input that provides further context. "
_LONE = "Below is an instruction that describes a task. "
_REQUEST = "Write a response for the task request."
_COMPLETES = "Write a response that appropriately completes the request."


def _copa(row: dict[str, Any]) -> tuple[str, list[str], list[int]]:
    joint = {"effect": " so", "cause": " because"}[row["question"]]
    premise = row["premise"].strip()
    premise = premise[:-1] if premise.endswith(".") else premise
    choices = [row["choice1"], row["choice2"]]
    choices = [" " + (c if c.startswith("I ") else c[0].lower() + c[1:]) for c in choices]
    return premise + joint, choices, [row["label"]]


def _record(row: dict[str, Any]) -> tuple[str, list[str], list[int]]:
    passage = row["passage"].replace("@highlight\n", "- ")
    filled = [" " + row["query"].replace("@placeholder", entity) for entity in row["entities"]]
    return passage + "\n-", filled, [row["entities"].index(answer) for answer in row["answers"]]


def _arc(row: dict[str, Any]) -> tuple[str, list[str], list[int]]:
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    return f"Question: {row['question']}\nAnswer:", [" " + t for t in texts], [labels.index(row["answerKey"])]


def _mmlu(row: dict[str, Any]) -> tuple[str, list[str], list[int]]:
    letters = "ABCD"[: len(row["choices"])]
    listed = "".join(f"{letter}. {text}\n" for letter, text in zip(letters, row["choices"], strict=True))
    subject = row["subject"].replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    return f"{head}{row['question']}\n{listed}Answer:", [f" {letter}" for letter in letters], [row["answer"]]


def _squad(row: dict[str, Any]) -> tuple[str, list[str], list[int]]:
    asked = f"Title: {row['title']}\nContext: {row['context']}\nQuestion: {row['question'].strip()}\nAnswer:"
    return asked, [f" {row['answers']['text'][0]}\n"], [0]


def _drop(row: dict[str, Any]) -> tuple[str, list[str], list[int]]:
    asked = f"Passage: {row['passage']}\nQuestion: {row['question'].strip()}\nAnswer:"
    return asked, [f" {row['answers_spans']['spans'][0]}\n"], [0]


def _ni(row: dict[str, Any]) -> tuple[str, list[str], list[int]]:
    definition = row["definition"] if isinstance(row["definition"], str) else row["definition"][0]
    asked = f"### Instruction:\n{definition}\n\n### Input:\n{row['input']}\n\n### Response:"
    return f"{_PAIR}{_COMPLETES}\n\n{asked}", [row["output"][0]], [0]


def _instructed(given: str, asks: str, row: dict[str, Any], answer: str) -> tuple[str, list[str], list[int]]:
    block = f"### Input:\n{row[given]}\n\n" if row[given] else ""
    head = (_PAIR if row[given] else _LONE) + asks
    return f"{head}\n\n### Instruction:\n{row['instruction']}\n\n{block}### Response:", [row[answer]], [0]


ASKED = {
    "copa": _copa,
    "record": _record,
    "arc-easy": _arc,
    "arc-challenge": _arc,
    "mmlu": _mmlu,
    "squad": _squad,
    "drop": _drop,
    "natural-instructions": _ni,
    "dolly": lambda row: _instructed("context", _REQUEST, row, "response"),
    "alpaca": lambda row: _instructed("input", _COMPLETES, row, "output"),
}
ENDS = {"squad": "\n", "drop": "\n", "natural-instructions": "eos", "dolly": "eos", "alpaca": "eos"}
_SCENE = "The film is dull .\n@highlight\nThe cast is good"
_ARC_ROWS = [
    {
        "question": "Is it a plot?",
        "choices": {"text": ["Yes", "No it is a film"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    {"question": "a story?", "choices": {"text": ["a", "the plot", "bad"], "label": ["1", "2", "3"]}, "answerKey": "2"},
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "copa": [
        {
            "premise": "The film was dull.",
            "choice1": "I was bad.",
            "choice2": "It was weak.",
            "question": "effect",
            "label": 1,
        },
        {
            "premise": "The plot is good",
            "choice1": "The cast is weak.",
            "choice2": "A scene.",
            "question": "cause",
            "label": 0,
        },
    ],
    "record": [
        {
            "passage": _SCENE,
            "query": "the @placeholder was great",
            "entities": ["film", "cast", "story"],
            "answers": ["cast"],
        },
        {
            "passage": "a plot",
            "query": "@placeholder is it",
            "entities": ["plot", "ending"],
            "answers": ["ending", "plot"],
        },
    ],
    "arc-easy": _ARC_ROWS,
    "arc-challenge": _ARC_ROWS,
    "mmlu": [
        {
            "question": "What is it?",
            "subject": "film_story",
            "choices": ["a film", "a plot", "good", "bad"],
            "answer": 2,
        },
        {"question": "Was it bad?", "subject": "cast", "choices": ["Yes", "No", "Maybe", "okay"], "answer": 0},
    ],
    "squad": [
        {
            "title": "Film",
            "context": "the film is a story",
            "question": "What is it? ",
            "answers": {"text": ["a story", "story"]},
        },
        {"title": "Plot", "context": "the plot is weak and dull", "question": "is it?", "answers": {"text": ["weak"]}},
    ],
    "drop": [
        {
            "passage": "the cast is good",
            "question": "What is good?",
            "answers_spans": {"spans": ["cast"], "types": ["span"]},
        },
        {
            "passage": "a film and a plot",
            "question": "What?",
            "answers_spans": {"spans": ["film", "plot"], "types": []},
        },
    ],
    "natural-instructions": [
        {"definition": ["the plot is a story"], "input": "a film", "output": ["good", "great"]},
        {"definition": "is it good", "input": "the cast and the plot", "output": ["Yes"]},
    ],
    "dolly": [
        {"instruction": "a film", "context": "the cast", "response": "good and bad", "category": "summarization"},
        {"instruction": "a plot", "context": "", "response": "the story is weak", "category": "open_qa"},
    ],
    "alpaca": [
        {"instruction": "a film", "input": "", "output": "dull"},
        {"instruction": "the plot", "input": "a scene", "output": "a superb ending"},
    ],
}


def oracle(model: Any, tokenizer: Any, name: str, row: dict[str, Any]) -> torch.Tensor:
    """float32 [C]: mean log-probability per token of each candidate after the prompt."""
    prompt, candidates, _ = ASKED[name](row)
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    scores = []
    for candidate in candidates:
        answer = tokenizer(prompt + candidate, add_special_tokens=False)["input_ids"][len(before) :]
        answer += [tokenizer.eos_token_id] * (ENDS.get(name) == "eos")
        ids = torch.tensor([[tokenizer.bos_token_id, *before, *answer]])
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].float().log_softmax(-1)
        at = range(ids.shape[1] - len(answer) - 1, ids.shape[1] - 1)
        scores.append(torch.stack([logs[i, token] for i, token in zip(at, answer, strict=True)]).mean())
    return torch.stack(scores)


def long_llama(tmp: Path, positions: int = 1024) -> Path:
    """A tiny Llama with so many positions."""
    folder = named(save_tiny_folder(tmp, "llama"), {}, max_position_embeddings=positions)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": positions}))
    return folder
