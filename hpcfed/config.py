"""The recipe: every setting of a run, its default and its check, written once. --set and TOML use the same names.

A setting is validated at birth by a pydantic model that forbids unknown keys; what is wrong reaches the user as one
ConfigError that names the setting, the value, what is allowed and the nearest real name.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from .errors import ConfigError, did_you_mean

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("bool", "true and false are no value for this setting")
        return value


class ModelConfig(_Section):
    """The base model. `name` is a hub name, a local folder, or "digits-vit" (shipped)."""

    name: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    revision: str | None = None
    pad_token: str | None = None


class TaskConfig(_Section):
    """Data and how an example becomes a loss. name: picks columns, prompt, labels and metric; data: where it lies."""

    name: str
    data: str | None = None
    form: Literal["auto", "head", "prompt"] = "auto"
    train_split: str | None = None
    eval_splits: list[str] | None = None
    text: list[str] | None = None
    label: str | None = None
    prompt: str | None = None
    verbalizers: list[str] | None = None
    max_length: Positive | None = None
    few_shot: Positive | None = None
    few_shot_seed: int = 0
    train_limit: Positive | None = None
    eval_limit: Positive | None = None


class ClientsConfig(_Section):
    """Who owns the data, who votes in a round, and in which fixed groups clients are evaluated together.

    per_round: a number of clients, or a fraction of them as a float in (0, 1].
    group: clients evaluated in one forward pass, by client id; rows host whole groups, so the result does not depend
    on the number of rows, and there can be no more rows than groups.
    max_batch_examples, max_batch_tokens: a group larger than this runs in micro-batches (0: no limit).
    """

    count: Positive = 5
    per_round: int | float = 1.0
    batch: Positive = 16
    partition: Literal["iid", "dirichlet", "shards", "natural", "quantity"] = "iid"
    beta: Annotated[float, Field(gt=0)] = 1.0
    shards_per_client: Positive = 2
    id_column: str | None = None
    group: Positive = 1
    max_batch_examples: NotNegative = 0
    max_batch_tokens: NotNegative = 0

    @model_validator(mode="after")
    def _cohort_fits(self) -> ClientsConfig:
        if self.per_round <= 0:
            raise ValueError(f"clients.per_round={self.per_round}: must be a number of clients or a fraction in (0, 1]")
        if isinstance(self.per_round, float) and self.per_round > 1:
            raise ValueError(
                f"clients.per_round={self.per_round}: a fraction must lie in (0, 1]; write a number of clients whole"
            )
        if isinstance(self.per_round, int) and self.per_round > self.count:
            raise ValueError(f"clients.per_round={self.per_round}: there are only clients.count={self.count} clients")
        if self.partition == "natural" and not self.id_column:
            raise ValueError('clients.partition="natural": clients.id_column must name the column that holds the owner')
        return self

    @property
    def cohort(self) -> int:
        """Clients that vote in a round."""
        return self.per_round if isinstance(self.per_round, int) else max(1, round(self.per_round * self.count))


class AlgorithmConfig(_Section):
    """The method and its step. lr: step size; mu: perturbation scale; directions: votes a client casts in a round.

    schedule: constant, linear or cosine, from lr to lr * final over the run's rounds after `warmup` rounds from 0.
    rounding: "auto" is stochastic for 16-bit weights (to nearest, almost no weight would move) and nearest in fp32.
    ballot: "sum" all-reduces integer sums, "bits" gathers one bit a client so that no row can stuff the box.
    train_only: patterns of parameter names, e.g. ["classifier.*"]; empty trains all.
    """

    name: str = "feedsign"
    lr: Annotated[float, Field(gt=0)]
    mu: Annotated[float, Field(gt=0)] = 1e-3
    directions: Annotated[int, Field(ge=1, le=64)] = 1
    distribution: Literal["gaussian", "rademacher"] = "gaussian"
    rounding: Literal["auto", "stochastic", "nearest"] = "auto"
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: NotNegative = 0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    ballot: Literal["sum", "bits"] = "sum"
    train_only: list[str] = []


class MeshConfig(_Section):
    """shards: ranks that hold one copy of the model. threads: CPU threads a rank (0: torch's default)."""

    shards: Annotated[int, Field(ge=1)] = 1
    transport: Literal["auto", "torch", "mpi"] = "auto"
    threads: NotNegative = 0


class Recipe(_Section):
    """A whole run. eval_every, check_every (fingerprints of all rows), log_every: in rounds; 0: only at the end."""

    rounds: Positive
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    eval_every: NotNegative = 0
    eval_batch: Positive = 64
    check_every: NotNegative = 500
    log_every: Positive = 1
    tensorboard: bool = False
    model: ModelConfig
    task: TaskConfig
    clients: ClientsConfig = ClientsConfig()
    algorithm: AlgorithmConfig
    mesh: MeshConfig = MeshConfig()

    @property
    def rounding(self) -> str:
        """The rounding rule in force: "stochastic" or "nearest"."""
        if self.algorithm.rounding != "auto":
            return self.algorithm.rounding
        return "nearest" if self.model.dtype == "float32" else "stochastic"


def shipped() -> dict[str, Path]:
    """Recipes that come with the package: name -> file."""
    folder = Path(str(resources.files("hpcfed") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_recipe(name_or_file: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe called `name_or_file` (a shipped name or a TOML file) with `section.key=value` overrides applied.

    Raises ConfigError for anything unknown, of a wrong type or out of range.
    """
    file = Path(name_or_file)
    if name_or_file in shipped():
        file = shipped()[name_or_file]
    elif not file.is_file():
        raise ConfigError(
            f"recipe {name_or_file!r} is neither a file nor a shipped recipe{did_you_mean(name_or_file, shipped())}"
        )
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
        raise ConfigError(f"recipe {file}: not a readable TOML file: {e}") from None
    for item in overrides:
        _override(raw, item)
    return validate(raw)


def validate(raw: dict[str, Any]) -> Recipe:
    """A Recipe from nested dictionaries; all that is wrong in one ConfigError."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as e:
        raise ConfigError("\n".join(dict.fromkeys(_explain(error) for error in e.errors()))) from None


def _override(raw: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {item!r}: write it as section.key=value, e.g. --set algorithm.lr=1e-4")
    *path, last = key.strip().split(".")
    for part in path:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--set {item!r}: {part} is a setting, not a section")
    try:
        raw[last] = tomllib.loads(f"v = {text.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        raw[last] = text.strip()  # a bare word is a string: --set algorithm.schedule=cosine


def _section(path: Sequence[str]) -> type[BaseModel] | None:
    model: Any = Recipe
    for part in path:
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = field.annotation if field else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _explain(error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        section = _section(path[:-1])
        where = "".join(f"{part}." for part in path[:-1])
        near = difflib.get_close_matches(path[-1], section.model_fields, n=1, cutoff=0.5) if section else []
        known = ", ".join(sorted(where + field for field in section.model_fields)) if section else ""
        return f"{name} is not a setting" + (f"; did you mean {where}{near[0]}?" if near else "") + f" (known: {known})"
    if error["type"] == "missing":
        return f"{name} is missing; the recipe or --set {name}=... must give it"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if path[-1] in ("int", "float"):  # the branches of int | float
        name = ".".join(path[:-1])
        return f"{name}={error['input']!r}: input should be a number"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{name}={error['input']!r}: {message}"


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML, all defaults written out (settings that are None are left out)."""
    plain = recipe.model_dump(exclude_none=True)
    lines = [f"{key} = {_value(value)}" for key, value in plain.items() if not isinstance(value, dict)]
    for section, values in plain.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"] + [f"{key} = {_value(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)  # 1e-05 and 0.5 are both TOML
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON allows a bare DEL, TOML does not
