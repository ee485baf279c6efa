"""The section [task]: data, what a model is asked, what it is trained on and scored by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, ValidationInfo, field_validator, model_validator

from .section import Positive, Section


class TaskConfig(Section):
    """Data, and how an example becomes a loss."""

    name: str
    """A task that hpcfed knows, which picks columns, prompt, labels and metric; custom: all of them from here."""
    data: str | None = None
    """Where the data lie: a hub name (NAME:CONFIGURATION), a folder, a file or a pattern; default: the task's own."""
    form: Literal["auto", "head", "prompt", "choices", "answer", "generate"] = "auto"
    """head: a new classifier on top.  prompt: a language model is asked for one of the classes' words.  choices:
    for one of an example's own candidates.  answer: for its own text.  generate: the same, and what the model
    writes by itself is scored.  auto: what the task is and the model can."""
    train_split: str | None = None
    """What clients train on; default train."""
    eval_splits: list[str] | None = None
    """What the model is evaluated on; default: the task's own."""
    text: list[str] | None = None
    """Columns that hold the text."""
    label: str | None = None
    """Column that holds the label; of candidates the right one, or several; else the answer's text, or several."""
    choices: list[str] | None = None
    """Columns that hold the candidates, one each, or one that holds a list of them."""
    choice_labels: str | None = None
    """Column that holds what the label calls the candidates, in their order; default: their numbers from 0, letters
    from A, or texts."""
    prompt: str | None = None
    """Template with {column} and one {verbalizer}, or {answer} where answers differ from example to example; or the
    same in Jinja, after "jinja:"."""
    chat: bool = False
    """Put the prompt into the tokenizer's chat template, as what the user says."""
    verbalizers: dict[str, str] | list[str] | None = None
    """A word for each class: {CLASS = "WORD", ...} by the names of the classes, or a list in their order."""
    bos: Literal["auto"] | StrictBool | Annotated[int, Field(ge=0, strict=True)] = "auto"
    """First token of a causal model's text. auto: what its tokenizer puts there.  true: the tokenizer's bos.  false:
    none.  A number: the token of that number (MeZO's OPT: 0)."""
    max_length: Positive | None = None
    """Tokens beyond which an example is cut; default: the task's own, else 256, or 128 for single texts of masked
    models and classifiers, and 1,024 where answers differ from example to example."""
    ends: str | None = None
    """What ends an answer: eos (the tokenizer's token), or a text; default: the task's own, else eos."""
    max_new_tokens: Positive | None = None
    """Most tokens that the model writes in an evaluation; default: the task's own, else 50."""
    objective: str = "auto"
    """What clients train on.  candidates: cross-entropy over them.  answer: of the right answer's tokens, a mean an
    example.  auto: what the task's paper does. A metric (accuracy, f1, em, rougeL, rougeL-fedkseed, or FILE.py:NAME
    of your own) has no gradient: both sides are scored, or decoded and scored, and the better one wins the vote."""
    metrics: list[str] | None = None
    """What is reported of a split, the first above all; default: the task's own."""
    group: str | None = None
    """Column whose equal values belong together: such examples go to one client, and to one side of `dev`."""
    held_out: dict[str, list[str]] | None = None
    """{COLUMN = [VALUE, ...]}: training examples with one of these values are kept from the clients, and evaluated as
    the split held_out; default: the task's own."""
    dev: Positive | None = None
    """So many training examples are kept from the clients, and evaluated as the split dev."""
    few_shot: Positive | None = None
    """Train on so many examples of every class."""
    few_shot_seed: int = 0
    """Which ones, and which examples the two limits leave."""
    train_limit: Positive | None = None
    """At most so many training examples."""
    eval_limit: Positive | None = None
    """At most so many examples of each evaluation split."""

    @field_validator("verbalizers", mode="before")
    @classmethod
    def _words(cls, words: Any) -> Any:
        values = list(words.values()) if isinstance(words, dict) else words
        if words is not None and not (isinstance(values, list) and all(isinstance(word, str) for word in values)):
            like = '{CLASS = "WORD", ...} or ["WORD", ...]'
            raise ValueError(f"task.verbalizers={words!r}: write a word for each class, {like}")
        if words is not None and not all(word.strip() for word in values or [""]):
            raise ValueError(f"task.verbalizers={words!r}: an empty word answers nothing; write a word for each class")
        return words

    @field_validator("eval_splits", "text", "choices", "metrics")
    @classmethod
    def _names(cls, names: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if names and not all(name.strip() for name in names):
            raise ValueError(f"task.{info.field_name}={names!r}: an empty name names nothing")
        return names

    @field_validator("prompt")
    @classmethod
    def _template(cls, prompt: str | None) -> str | None:
        if prompt is not None and not prompt.strip():
            raise ValueError("task.prompt='': is empty; leave it out for the task's own")
        return prompt

    @model_validator(mode="after")
    def _of_its_form(self) -> TaskConfig:
        if self.form in ("head", "prompt"):
            for setting in ("choices", "choice_labels", "ends", "max_new_tokens"):
                if (value := getattr(self, setting)) is not None:
                    raise ValueError(f'task.{setting}={value!r}: task.form="{self.form}" has no such setting')
        if self.form in ("choices", "answer", "generate") and self.verbalizers is not None:
            raise ValueError(
                f'task.verbalizers: task.form="{self.form}" has answers of each example\'s own, no classes'
            )
        if self.choice_labels is not None and self.choices is None:
            raise ValueError(
                f"task.choice_labels={self.choice_labels!r}: task.choices must name the candidates' columns"
            )
        return self
