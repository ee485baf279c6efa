"""How a recipe's task is asked: which kind of model it takes, its prompt, its words, where it is cut.

Promise  everything here follows from the recipe and the kind of model, before any data are read
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..config.outside import is_outside
from ..errors import ConfigError, did_you_mean
from .base import IMAGES, LANGUAGE
from .metrics import OF_NUMBERS, find_metric
from .own import own_kind, own_task
from .prompts import ANSWER, VERBALIZER, Prompt, in_chat, parse_prompt
from .table import CUSTOM, TASKS, Open, TaskInfo

if TYPE_CHECKING:
    from ..config import TaskConfig

LONG = 1024  # tokens of a prompt with an answer of its own


def task_info(config: TaskConfig) -> TaskInfo:
    """The named task with the recipe's columns and splits in place of its own; for "custom" all from the recipe."""
    if is_outside(config.name):
        outside = own_task(config)
        return TaskInfo(None, () if outside.kinds == (IMAGES,) else ("text",), "label", outside.labels)
    if config.name == CUSTOM:
        if config.data is None:
            raise ConfigError('task.name="custom": task.data must say where the data lie (hub name, folder or file)')
        known = TaskInfo(None, tuple(config.text or ()), "label", (), open=_own_open(config))
        if known.open:  # its prompt names the columns
            known = replace(known, text=tuple(config.text or _named(known.open.prompt, ANSWER)))
        elif config.form == "prompt" and config.prompt and not config.text:
            known = replace(known, text=tuple(_named(config.prompt, VERBALIZER)))
    elif config.name in TASKS:
        known = TASKS[config.name]
        known = replace(known, open=_as_asked(config, known)) if known.open else known
    else:
        raise ConfigError(f"task.name={config.name!r} is not a task{did_you_mean(config.name, [*TASKS, CUSTOM])}")
    if config.text is not None and len(config.text) != len(known.text):
        own = f"{len(known.text)} text columns ({', '.join(known.text)})" if known.text else "images, no text"
        raise ConfigError(f"task.text={config.text}: task {config.name} reads {own}")
    if not known.open:
        for setting in ("choices", "choice_labels", "ends", "max_new_tokens"):
            if (value := getattr(config, setting)) is not None:
                raise ConfigError(
                    f"task.{setting}={value!r}: task {config.name} has classes, no answers of examples' own"
                )
        if config.objective == "answer":
            raise ConfigError(
                f'task.objective="answer": task {config.name} has classes, and is trained over all: use candidates'
            )
    return known


def _named(prompt: str, place: str) -> Sequence[str]:
    """The columns that a prompt shows."""
    return parse_prompt(prompt, None, place).columns


def _own_open(config: TaskConfig) -> Open | None:
    """What a custom task asks, if its answers differ from example to example."""
    form = config.form
    if form == "auto" or form == "head" or form == "prompt":
        if config.choices:
            raise ConfigError(f'task.choices={config.choices}: task.form="choices" asks for one of them')
        return None
    if config.prompt is None:
        raise ConfigError(f'task.form="{form}" of a custom task: task.prompt must say how it is asked, with {{answer}}')
    if form == "choices" and not config.choices:
        raise ConfigError('task.form="choices": task.choices must name the columns that hold the candidates')
    usual = Open("choices", objective="candidates")
    if form != "choices":
        usual = Open(form, ends="eos", metrics=_usual(form))
    return _changed(config, usual)


def _usual(form: str) -> tuple[str, ...]:
    return ("rougeL", "f1", "em") if form == "generate" else ("greedy-match",)


def _as_asked(config: TaskConfig, known: TaskInfo) -> Open:
    """What a named task asks, with the recipe's settings."""
    assert known.open
    form, own = config.form, known.open
    if form == "auto" or form == own.form:
        return _changed(config, own)
    if (form == "answer" or form == "generate") and own.form != "choices":
        return _changed(config, replace(own, form=form, metrics=_usual(form)))
    others = ["choices"] if own.form == "choices" else ["answer", "generate"]
    raise ConfigError(f'task.form="{form}": task {config.name} is of form {" or ".join(others)}')


def _changed(config: TaskConfig, own: Open) -> Open:
    """`own` with what the recipe says."""
    changes: dict[str, Any] = {
        "prompt": config.prompt,
        "choices": tuple(config.choices) if config.choices else None,
        "choice_labels": config.choice_labels,
        "ends": config.ends,
        "most": config.max_new_tokens,
        "metrics": tuple(config.metrics) if config.metrics else None,
        "objective": config.objective if config.objective in ("candidates", "answer") else None,
    }
    own = replace(own, **{key: value for key, value in changes.items() if value is not None})
    if own.form == "choices" and reward(config):
        own = replace(own, objective="candidates")  # to answer, the model must see all of them in training, too
    if own.objective == "candidates" and own.form != "choices":
        raise ConfigError(f'task.objective="candidates": task.form="{own.form}" has no candidates; use "answer"')
    if config.choices and own.form != "choices":
        raise ConfigError(f'task.choices={config.choices}: task.form="{own.form}" has no candidates')
    return own if own.form == "generate" else replace(own, most=0)


def kind_of(config: TaskConfig, native: str) -> str:
    """What to load the model as: image-classification, sequence-classification, causal-lm or masked-lm.

    native: what the model's folder says it is (model.model_kind), one of the same four.
    Raises ConfigError if the task and the model do not go together.
    """
    if is_outside(config.name):
        return own_kind(config, native)
    info = task_info(config)
    if info.open:
        if native != "causal-lm":
            raise ConfigError(
                f"task.name={config.name!r}, form {info.open.form}: answers of examples' own need a causal language "
                f"model, the model is a {native} model"
            )
        return native
    if not info.text:
        if native != IMAGES:
            cure = "; for text, task.text must name the text columns" if config.name == CUSTOM else ""
            raise ConfigError(f"task.name={config.name!r} is about images, the model is a {native} model{cure}")
        return native
    if native == IMAGES:
        raise ConfigError(f"task.name={config.name!r} is about text, the model is an image classifier")
    if config.form == "head":
        return "sequence-classification"
    if native in LANGUAGE:
        prompted = config.name != CUSTOM or config.prompt is not None or config.form == "prompt"
        return native if prompted else "sequence-classification"
    if config.form == "prompt":
        raise ConfigError(f'task.form="prompt" needs a language model, the model is a {native} model')
    return native


def asked(config: TaskConfig, info: TaskInfo, kind: str) -> tuple[str, Sequence[str]]:
    """The prompt, and the task's own words; empty: it has none."""
    if info.open:
        return info.open.prompt, ()
    own = info.causal if kind == "causal-lm" else info.masked
    return config.prompt or (own.prompt if own else ""), own.verbalizers if own else ()


def prompt_of(config: TaskConfig, info: TaskInfo, kind: str, tokenizer: Any) -> Prompt:
    """The task's prompt for a model of `kind`. ConfigError if it has none, or a wrong one."""
    text, _ = asked(config, info, kind)
    if not text:
        if config.name == CUSTOM:
            raise ConfigError('task.form="prompt" of a custom task needs task.prompt and task.verbalizers')
        head = ', or use task.form="head"' if len(info.text) <= 2 else ""
        raise ConfigError(
            f"task.name={config.name!r} has no prompt for a {kind} model: give task.prompt and task.verbalizers{head}"
        )
    columns: Sequence[str] | None = info.text
    if info.open and info.open.shape:
        columns = None  # a shape adds texts of its own
    prompt = parse_prompt(text, columns, ANSWER if info.open else VERBALIZER)
    if config.chat and kind != "causal-lm":
        raise ConfigError(f"task.chat=true: a chat is a causal model's; this is a {kind} model")
    return in_chat(prompt, tokenizer) if config.chat else prompt


def told(config: TaskConfig, kind: str, length: int, words: Sequence[str] | None = None) -> dict[str, Any]:
    """How examples are put to a model of `kind`, cut to `length` tokens, as Task.told has it.

    words: of the classes in their order; None: in the order of task.verbalizers.
    """
    info = task_info(config)
    if not info.text or is_outside(config.name):
        return {}
    if kind == "sequence-classification":
        return {"text": list(info.text), "max_length": length}
    prompt, own = asked(config, info, kind)
    rest: dict[str, Any] = {} if config.bos == "auto" else {"bos": config.bos}
    rest |= {"chat": True} if config.chat else {}
    if info.open:
        return {"prompt": prompt, "form": info.open.form, "ends": info.open.ends, "max_length": length, **rest}
    if words is None:
        words = list(config.verbalizers.values()) if isinstance(config.verbalizers, Mapping) else config.verbalizers
    return {"prompt": prompt, "verbalizers": list(words or own), "max_length": length, **rest}


def check_metrics(config: TaskConfig, metrics: Sequence[str], texts: bool) -> None:
    """ConfigError for a metric, or an objective, that the answers cannot have.  texts: they are written."""
    for name in metrics:
        find_metric(name)
        if texts and name in OF_NUMBERS:
            raise ConfigError(
                f"task.metrics={name!r}: compares classes or candidates, and answers here are texts: use f1"
            )
    if (objective := reward(config)) is None:
        return
    if find_metric(objective, "task.objective").each is None:
        raise ConfigError(
            f"task.objective={objective!r}: is a metric of whole splits, no example has it; use accuracy or f1"
        )
    if texts and objective in OF_NUMBERS:
        raise ConfigError(
            f"task.objective={objective!r}: compares classes or candidates, and answers here are texts: use f1"
        )


def reward(config: TaskConfig) -> str | None:
    """The metric that clients train on; None: they train on a loss."""
    return None if config.objective in ("auto", "candidates", "answer") else config.objective


def max_length(config: TaskConfig, info: TaskInfo, kind: str, tokenizer: Any) -> int:
    """task.max_length, or the usual one, within the model's positions."""
    most = tokenizer.model_max_length
    if info.open and info.open.tail:
        most -= info.open.most  # they come on top of a prompt that is as long as it may be
        if most <= 0:
            raise ConfigError(
                f"task.max_new_tokens={info.open.most}: the model has only {tokenizer.model_max_length} positions, for "
                "a prompt and these; give fewer"
            )
    if config.max_length is None:
        return min(usual_length(info, kind), most)
    if config.max_length > most:
        beside = f", less task.max_new_tokens={info.open.most}" if info.open and info.open.tail else ""
        raise ConfigError(
            f"task.max_length={config.max_length}: the model has only {tokenizer.model_max_length} positions{beside}"
        )
    return config.max_length


def usual_length(info: TaskInfo, kind: str) -> int:
    """Where examples are cut unless task.max_length says otherwise, in tokens."""
    if info.length or info.open:
        return info.length or LONG
    return 256 if kind == "causal-lm" or len(info.text) > 1 else 128
