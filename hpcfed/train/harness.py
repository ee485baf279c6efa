"""Scores of lm-evaluation-harness: its own tasks, prompts and metrics, of the model that `evaluate` would score.

    scores = harness("runs/first", "arc_easy,own.yaml", shots=5)     {"arc_easy": {"shots": 5, "metrics": ...}, ...}

Promise  the figures are those of lm_eval's simple_evaluate, with its own seeds, on the folder that `hpcfed export`
         writes; the generators of Python, NumPy and PyTorch are left as they were
"""

from __future__ import annotations

import copy
import difflib
import io
import logging
import numbers
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Recipe
from ..errors import ConfigError, HpcfedError, first_line
from ..model import model_kind
from ..model.head import whole_head
from ..model.load import quiet as quiet_transformers
from ..tasks import kind_of
from ..transport.base import together
from .meet import Meeting
from .problem import Problem
from .score import rebuilt

#: Loggers of what lm_eval calls, and says on their own.
_TALKERS = ("datasets", "evaluate", "huggingface_hub", "accelerate", "absl")
_YAML = (".yaml", ".yml")


def harness(
    what: Recipe | str | Path,
    tasks: str,
    *,
    orbit: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    shots: int | None = None,
    limit: int | None = None,
    quiet: bool = False,
) -> dict[str, dict[str, Any]]:
    """What lm_eval's tasks say of a model, groups of tasks first; what `hpcfed evaluate --lm-eval` prints.

    tasks: names that lm_eval has and paths of yaml files, between commas.  shots: solved examples before each
    question, where the task does not fix their number; None: as many as the task says.  limit: first examples of each
    task.  The others: as `evaluate`; the recipe's eval_batch is the size of batches.

    Returns for each task or group {"shots": int or None, "examples": int or None, "metrics": {name: {"value": float,
    "stderr": float or None}}}, plain enough for JSON.
    Collective: every rank of the launch, which are one row, calls it alike.  Raises HpcfedError (alone; on several
    ranks see meet.py).
    """
    loaded: dict[str, dict[str, Any]] = {}

    def check(meeting: Meeting) -> None:
        transport, resolved = meeting.transport, meeting.recipe
        if transport.rows > 1:
            of = f"{transport.rows} rows of {transport.row.shards}"
            raise transport.everywhere(
                ConfigError(f"--lm-eval: {of}; one row scores: start {transport.row.shards} ranks (mesh.shards)")
            )

        def load() -> None:
            names = _names(tasks, shots, limit)
            _check_kind(resolved)
            _check_library()
            with _hushed(), _seeded("cpu"):
                loaded.update(_load(names))

        together(transport, load)

    with rebuilt(what, orbit, recipe, overrides, quiet, check) as (meeting, problem):
        says = meeting.transport.rank == 0 and not quiet
        with meeting.transport.row.peers():
            scores, notes = _score(problem, loaded, meeting.recipe.eval_batch, shots, limit, says)
        for note in notes if says else ():
            print(note, file=sys.stderr, flush=True)
        return scores


def _names(tasks: str, shots: int | None, limit: int | None) -> list[str]:
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise ConfigError("--lm-eval: name tasks of lm_eval or yaml files, e.g. --lm-eval arc_easy,own.yaml")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ConfigError(f"--lm-eval: {twice[0]} is there twice")
    if shots is not None and shots < 0:
        raise ConfigError(f"--num-fewshot {shots}: must be at least 0")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit}: must be at least 1")
    return names


def _check_kind(recipe: Recipe) -> None:
    if (kind := kind_of(recipe.task, model_kind(recipe.model))) != "causal-lm":
        raise ConfigError(
            f"--lm-eval: model.name={recipe.model.name!r} is asked as {kind}; lm_eval's tasks are for causal-lm only"
        )


def _check_library() -> None:
    missing = [name for name in ("lm_eval", "accelerate") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"--lm-eval needs {' and '.join(missing)}: pip install 'hpcfed[lm-eval]'")
    try:
        with _hushed():
            import lm_eval.evaluator
            import lm_eval.models.huggingface  # noqa: F401
    except Exception as error:  # whatever a library of another version makes it raise
        raise ConfigError(f"--lm-eval: lm_eval cannot be loaded: {_why(error)}") from None


@cache
def _shipped() -> Any:
    """lm_eval's own tasks; reading them takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _load(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{"tasks": task of each name, "groups": group of each name}, with their data."""
    found: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}}
    for name in names:
        manager, spec = _own(name) if name.endswith(_YAML) else (_shipped(), name)
        if spec is name and name not in manager.task_index:
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            raise ConfigError(
                f"--lm-eval {name}: lm_eval has no task of this name{f'; did you mean {near[0]}?' if near else ''} "
                "(lm-eval ls tasks lists them; a yaml file of your own ends in .yaml)"
            )
        try:
            new = manager.load([spec])
        except OSError as error:  # what datasets raises for files, and for a hub out of reach
            raise ConfigError(
                f"--lm-eval {name}: its data cannot be loaded ({first_line(error)}); without the hub, a yaml of your "
                "own reads local files: dataset_path: json and dataset_kwargs: {data_files: ...} (docs/DATA.md)"
            ) from None
        except Exception as error:  # whatever a malformed yaml or data set makes it raise
            raise ConfigError(f"--lm-eval {name}: lm_eval cannot load it: {_why(error)}") from None
        for part, known in found.items():
            if both := known.keys() & (new.get(part) or {}).keys():
                raise ConfigError(f"--lm-eval {name}: {min(both)} is a task of another name before it, too")
            known |= new.get(part) or {}
    return found


def _own(name: str) -> tuple[Any, str]:
    """A manager that knows what a yaml file may name, and the file as it is loaded by."""
    from lm_eval.tasks import TaskManager

    file = Path(name).expanduser().resolve()
    try:
        group = re.search(r"^group\s*:", file.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"--lm-eval {name}: cannot read it: {why}") from None
    if not group:
        return TaskManager(include_defaults=False), str(file)
    manager = TaskManager(include_path=str(file.parent), include_defaults=False)
    entry = next((entry for entry in manager.task_index.values() if entry.yaml_path == file), None)
    if entry is None:
        raise ConfigError(f"--lm-eval {name}: lm_eval cannot read it, or another file beside it has the same group")
    members = entry.cfg.get("task")
    if not isinstance(members, list) or not {str(member) for member in members} <= manager.task_index.keys():
        manager = TaskManager(include_path=str(file.parent))  # some are lm_eval's own, which take seconds to read
    return manager, entry.name


def _score(
    problem: Problem,
    loaded: Mapping[str, dict[str, Any]],
    batch: int,
    shots: int | None,
    limit: int | None,
    shown: bool,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Scores of all tasks, and what the user should know of them. Every shard of the row computes the same."""
    from lm_eval import evaluator
    from lm_eval.defaults import DEFAULT_OTHER_SEED
    from lm_eval.models.huggingface import HFLM

    model: Any = problem.model
    notes = []
    for name, task in loaded["tasks"].items():
        own = task.get_config("num_fewshot")
        if shots and own == 0:
            notes.append(f"{name} fixes its shots at 0: --num-fewshot {shots} does not change it")
        if own != 0:
            task.set_config(key="num_fewshot", value=(own or 0) if shots is None else shots)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    try:
        with _hushed(shown) as heard, _seeded(model.device), whole_head(model):
            lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(problem.processor), batch_size=batch)
            heard.clear()  # of the model that it has not loaded itself
            # All of simple_evaluate that is left once model and tasks are there.
            told = evaluator.evaluate(
                lm=lm, task_dict=dict(loaded), limit=limit, log_samples=False, fewshot_as_multiturn=True
            )
    except HpcfedError:
        raise
    except Exception as error:  # whatever a task, its data or the model makes it raise
        cure = "; lower eval_batch" if type(error).__name__ == "OutOfMemoryError" else ""
        raise ConfigError(f"--lm-eval: lm_eval ended with {_why(error)}{cure}") from None
    names = [*loaded["groups"], *loaded["tasks"]]
    return {name: _plain(name, told) for name in names}, [*notes, *heard.lines()]


def _plain(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """One task of lm_eval's results; a metric's filter is named where it is not "none"."""
    values = told["results"][name]
    metrics = {}
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            stderr = values.get(f"{metric}_stderr,{filtered}")
            metrics[metric if filtered == "none" else key] = {"value": _number(value), "stderr": _number(stderr)}
    samples = told["n-samples"].get(name)
    return {
        "shots": told["n-shot"].get(name),
        "examples": samples["effective"] if samples else None,
        "metrics": metrics,
    }


def _number(value: Any) -> float | None:
    """A finite number, or None: lm_eval says "N/A" of what it has not computed."""
    return float(value) if isinstance(value, numbers.Real) and np.isfinite(float(value)) else None


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


@contextmanager
def _seeded(device: Any) -> Iterator[None]:
    """Inside, the generators begin as lm_eval's simple_evaluate begins; outside, nobody notices.

    The modules are those that lm_eval draws from.
    """
    from lm_eval import evaluator
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    python = evaluator.random
    before, numpys = python.getstate(), np.random.get_state()
    gpus = [device] if torch.device(device).type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=gpus):
            python.seed(DEFAULT_RANDOM_SEED)
            np.random.seed(DEFAULT_OTHER_SEED)
            torch.manual_seed(DEFAULT_OTHER_SEED)
            yield
    finally:
        python.setstate(before)
        np.random.set_state(numpys)


class _Heard(logging.Handler):
    """What lm_eval warns of, the first of each kind and how many there were."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: dict[tuple[str, int], list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self._said.setdefault((record.pathname, record.lineno), []).append(record.getMessage())

    def clear(self) -> None:
        self._said.clear()

    def lines(self) -> list[str]:
        counted = [(" ".join(said[0].split())[:300], len(said)) for said in self._said.values()]
        return [f"lm_eval: {first}" + (f" (and {n - 1} more like this)" if n > 1 else "") for first, n in counted]


@contextmanager
def _hushed(bars: bool = False) -> Iterator[_Heard]:
    """Inside, lm_eval and what it calls print nothing, but for bars of progress on a terminal if `bars`."""
    own, heard = logging.getLogger("lm_eval"), _Heard()
    loggers = [own, *map(logging.getLogger, _TALKERS)]
    before, handlers, up = [logger.level for logger in loggers], own.handlers, own.propagate
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    own.setLevel(logging.WARNING)
    own.handlers, own.propagate = [heard], False
    out = sys.stderr if bars and sys.stderr.isatty() else io.StringIO()
    try:
        with warnings.catch_warnings(), quiet_transformers(), redirect_stdout(out), redirect_stderr(out):
            warnings.simplefilter("ignore")
            yield heard
    finally:
        own.handlers, own.propagate = handlers, up
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
