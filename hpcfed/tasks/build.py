"""A recipe's [task] section made into a Task: which rows of the data become examples of which split.

    TRAIN        what clients hold, less what is held out of it
    dev          task.dev examples of the training data, drawn at random
    held_out     those whose column says what task.held_out lists
    the others   task.eval_splits

Promise  every rank that reads the same data gets the same Task, bit for bit
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..config.outside import is_outside
from ..errors import ConfigError, DataError, did_you_mean
from .asked import check_metrics, reward, task_info
from .base import Examples, Task
from .carve import carve
from .class_rows import ClassRows
from .classes import Head, head_note, ordered
from .columns import codes_of, owners_of
from .digits import digits_arrays
from .images import array_form
from .labels import Classes, Indices, few_shot, limited, spell
from .load import open_splits
from .open_rows import OpenRows
from .own import load_own, refuse_taken
from .rows import Reading, Split
from .sources import Gathered, Source, read_sources, real_path
from .table import TaskInfo

if TYPE_CHECKING:
    from ..config import TaskConfig

DEV, HELD_OUT = "dev", "held_out"  # splits that are taken from the training data
_TAKEN = f"for {DEV} or {HELD_OUT}"
_ON_TRAINING = "scores on it are scores on training data"


class More(NamedTuple):
    """Columns that say more of a training example.  owners: whom it belongs to.  classes: what it is dealt by."""

    owners: str | None = None
    classes: str | None = None


def load_task(
    config: TaskConfig,
    kind: str,
    processor: Any,
    more: More = More(),  # noqa: B008  it is a tuple
    sources: Sequence[Source] | None = None,
    head: Head | None = None,
) -> Task:
    """Data of `config` encoded for a model of `kind`.

    processor: what model.load_processor gave for it (tokenizer, or what the model says about its images).
    more: clients.id_column and clients.class_column, kept in Task.train.owners and .classes.
    sources: where the training data are instead, a client each; Task.train is Gathered from them then.
    head: the classifier's head that the checkpoint has (model.head_labels), whose classes the task's are then.
    Raises ConfigError for settings that do not fit, DataError for data that do not.
    """
    if is_outside(config.name):
        return load_own(config, kind, processor, sources, head)
    info = task_info(config)
    if config.name == "digits":
        return _load_digits(config, info, head)
    reader: OpenRows | ClassRows = (
        OpenRows(config, info, kind, processor) if info.open else ClassRows(config, info, kind, processor, head)
    )
    return _Loader(config, info, reader, more).load(sources)


class _Loader:
    """Reads the splits of a task.  reader: how its rows are read."""

    def __init__(self, config: TaskConfig, info: TaskInfo, reader: OpenRows | ClassRows, more: More) -> None:
        self._config, self._info, self._reader, self._more = config, info, reader, more
        self._train = config.train_split or "train"
        held_out = config.held_out or ({info.held_out[0]: list(info.held_out[1])} if info.held_out else {})
        if len(held_out) > 1:
            raise ConfigError(f"task.held_out={held_out}: name one column, {{COLUMN = [VALUE, ...]}}")
        self._held_out = next(iter(held_out.items()), None)
        if self._train in (DEV, HELD_OUT) and (config.dev or self._held_out):
            raise ConfigError(f"task.train_split={self._train!r}: a split of that name is taken from the training data")

    def load(self, sources: Sequence[Source] | None) -> Task:
        """The task.  sources: as load_task."""
        config, info, reader, train_split = self._config, self._info, self._reader, self._train
        taken = [*([DEV] if config.dev else []), *([HELD_OUT] if self._held_out else [])]
        if taken and sources is not None:
            setting = "dev" if config.dev else "held_out"
            raise ConfigError(f"task.{setting}: with clients.manifest every client's data are its own; leave it out")
        eval_splits = list(config.eval_splits if config.eval_splits is not None else info.eval_splits)
        data = config.data or info.data
        if data is None:
            raise ConfigError(f"task.name={config.name!r}: task.data must say where the data lie (a folder or a file)")
        # The revision in the table belongs to the hub name in the table.
        revision = info.revision if config.data in (None, info.data) else None
        group = config.group or info.group
        more = [*(name for name in self._more if name), *([group] if group else [])]
        wanted = [*reader.columns, *more, *([self._held_out[0]] if self._held_out else [])]
        roots = [*wanted, *(info.unfold.roots if info.unfold else ())]
        trained = [train_split] if sources is None else []
        opened = open_splits(
            data, [*trained, *(s for s in eval_splits if s not in taken)], train_split, roots, revision
        )
        splits = {name: self._flat(split) for name, split in opened.items()}
        reader.learn(splits)
        notes = list(reader.notes)

        picked, readings, met = dict[str, Examples](), dict[str, Reading](), dict[str, set[int]]()
        for name, split in splits.items():
            index = reader.index(split)
            met[name] = {int(i) for i in np.unique(index) if i >= 0}
            known = np.flatnonzero(index >= 0)
            if not len(known):
                raise DataError(
                    f"{split.where}: no row has a label; task.eval_splits and task.train_split name other splits"
                )
            if name != train_split:
                rows = limited(known, config.eval_limit, config.few_shot_seed, f"limit {name}")
                picked[name], readings[name] = self._read(name, split, rows, index)
                continue
            left = self._take(split, known, index, picked)
            rows = self._chosen(left, index, split)
            picked[name], readings[name] = self._read(name, split, rows, index, len(known) - len(left))
        if reader.labels:
            _check_met(met, train_split, reader.labels)
        notes += [note for split in opened.values() for note in split.notes]
        if sources is None:
            train: Examples = picked[train_split]
            overlaps = _seen_in_training(train_split, picked)
            notes += (
                [f"{train_split} is trained on and evaluated: {_ON_TRAINING}"] if train_split in eval_splits else []
            )
        else:
            train = gathered = read_sources(sources, train_split, roots, self._of_client)
            readings = {train_split: gathered.reading} | readings
            overlaps = _seen_by_clients(gathered, splits, picked)
            notes += gathered.notes
        evaluated = {split: picked[split] for split in dict.fromkeys([*eval_splits, *taken])}
        training, judge = reader.forms
        return Task(
            config.name,
            reader.labels,
            train,
            evaluated,
            training,
            judge=judge,
            metrics=reader.metrics,
            decoding=reader.decoding,
            objective=reward(config),
            readings=readings,
            notes=notes,
            overlaps=overlaps,
            told=reader.told,
        )

    def _flat(self, split: Split) -> Split:
        """The split with a row for every example."""
        unfold = self._info.unfold
        return unfold.flat(split) if unfold and self._config.text is None else split

    def _take(self, split: Split, known: Indices, index: Indices, picked: dict[str, Examples]) -> Indices:
        """The rows that are left to the clients, where others are put into `picked`."""
        if self._held_out:
            column, values = self._held_out
            said = [None if value is None else str(value) for value in split.column(column, "task.held_out")]
            if missing := [value for value in values if value not in said]:
                raise DataError(
                    f"{split.where}: task.held_out: no row has {missing[0]!r} in column {column!r}"
                    f"{did_you_mean(missing[0], sorted({s for s in said if s is not None}))}"
                )
            out = np.array([said[i] in values for i in known], bool)
            if out.all():
                raise DataError(f"{split.where}: task.held_out leaves nothing to train on")
            rows = limited(known[out], self._config.eval_limit, self._config.few_shot_seed, f"limit {HELD_OUT}")
            picked[HELD_OUT], _ = self._read(HELD_OUT, split, rows, index)
            known = known[~out]
        if self._config.dev:
            groups = self._groups(split)
            kept, dev = carve(
                None if groups is None else groups[known], len(known), self._config.dev, self._config.few_shot_seed
            )
            picked[DEV], _ = self._read(DEV, split, known[dev], index)
            known = known[kept]
        return known

    def _chosen(self, known: Indices, index: Indices, split: Split) -> Indices:
        """Those of the training rows that the two limits leave."""
        config, shots = self._config, self._config.few_shot
        if shots is not None:
            if not self._reader.labels:
                raise ConfigError(f"task.few_shot={shots}: the task has no classes; task.train_limit takes examples")
            among = np.full(len(index), -1, np.int64)
            among[known] = index[known]
            known = few_shot(among, self._reader.labels, shots, config.few_shot_seed, split.where)
        return limited(known, config.train_limit, config.few_shot_seed, f"limit {self._train}")

    def _groups(self, split: Split) -> Indices | None:
        """int64 [n], of all rows: which group each belongs to."""
        if (group := self._config.group or self._info.group) is None:
            return None
        return codes_of(split, group, "task.group")[0]

    def _read(self, name: str, split: Split, rows: Indices, index: Indices, taken: int = 0) -> tuple[Examples, Reading]:
        """Examples of these rows, and what became of all.  taken: rows that are in dev or held_out."""
        examples, kept = self._reader.examples(split, rows, index)
        if not len(examples):
            raise DataError(
                f"{split.where}: no row of it leaves room for an answer; task.max_length is too small for it"
            )
        owners, classes = self._more
        of_train = name == self._train
        if owners and (of_train or all(owners in part.names for part in split.parts)):
            examples.owners = _owners(split, owners, of_train, kept)
        if of_train:
            if classes is not None:
                codes, examples.class_names = codes_of(split, classes, "clients.class_column")
                examples.classes = codes[kept]
            groups = self._groups(split)
            examples.groups = None if groups is None else groups[kept]
        unlabelled = int((index < 0).sum())
        left_out = {
            "no label": unlabelled,
            "no room for the answer": len(rows) - len(kept),
            _TAKEN: taken,
            _limit(of_train): len(index) - unlabelled - taken - len(rows),
        }
        files = tuple((part.where, len(part)) for part in split.parts)
        return examples, Reading(
            files, len(examples), {why: n for why, n in (left_out | split.left_out()).items() if n}
        )

    def _of_client(self, opened: Split) -> tuple[Examples, Reading]:
        """All examples of one client's split."""
        split = self._flat(opened)
        index = self._reader.index(split)
        rows = np.flatnonzero(index >= 0)
        if not len(rows):
            raise DataError(f"{split.where}: no row has a label; task.train_split names another split")
        return self._read(self._train, split, rows, index)


def _owners(split: Split, column: str, needed: bool, rows: Indices) -> Any:
    try:
        return owners_of(split, column)[rows]
    except DataError:
        if needed:
            raise
        return None  # an evaluation does not need them


def _limit(of_train: bool) -> str:
    """The settings that leave out examples."""
    return "task.train_limit or task.few_shot" if of_train else "task.eval_limit"


def _check_met(met: Mapping[str, set[int]], train_split: str, labels: Sequence[str]) -> None:
    """DataError if a split has no class that the training data have: they spell their labels in another way."""
    for split, classes in met.items():
        if met.get(train_split) and classes and not classes & met[train_split]:
            ours, theirs = (spell([labels[i] for i in sorted(found)]) for found in (met[train_split], classes))
            raise DataError(f"the labels of {train_split} are {ours}, those of {split} {theirs}: none is in both")


def _seen_in_training(train_split: str, picked: Mapping[str, Examples]) -> list[str]:
    """Notes on splits that are evaluated on what is trained on."""
    train, notes = picked[train_split], []
    for split, examples in picked.items():
        if split != train_split and len(examples) == len(train) and examples.digest() == train.digest():
            notes.append(f"{split} holds the same examples as {train_split}: {_ON_TRAINING}")
    return notes


def _seen_by_clients(train: Gathered, splits: Mapping[str, Split], picked: Mapping[str, Examples]) -> list[str]:
    """Notes on splits that are evaluated on what a client trains on: its file, or a copy of it."""
    notes = []
    for name, split in splits.items():
        files = {part.where: train.files.get("".join(real_path(part.where))) for part in split.parts}
        notes += [
            f"{where} is evaluated as {name} and is the data of {who}: {_ON_TRAINING}"
            for where, who in files.items()
            if who
        ]
        same = [i for i, part in enumerate(train.parts) if len(part) == len(picked[name])]
        if not any(files.values()) and any(train.parts[i].digest() == picked[name].digest() for i in same):
            notes.append(f"{name} holds the same examples as a client: {_ON_TRAINING}")
    return notes


def _load_digits(config: TaskConfig, info: TaskInfo, head: Head | None) -> Task:
    if config.data is not None:
        raise ConfigError(f"task.data={config.data!r}: digits come with the package; task.name must be another task's")
    refuse_taken(config, "digits", ("held_out", "group"))
    metrics = tuple(config.metrics or ("accuracy",))
    check_metrics(config, metrics, texts=False)
    arrays, notes = digits_arrays(), list[str]()
    classes = ordered(Classes.named(info.labels), head, notes)
    place = np.array([classes.numbers[digit] for digit in range(len(info.labels))])
    train_split = config.train_split or "train"
    eval_splits = list(config.eval_splits if config.eval_splits is not None else info.eval_splits)
    picked, readings = {}, {}
    for split in dict.fromkeys([train_split, *eval_splits]):
        if split not in arrays:
            raise DataError(f"digits has no split {split!r}{did_you_mean(split, arrays)}")
        images, labels = arrays[split][0], place[arrays[split][1]]
        limit, shots = (config.train_limit, config.few_shot) if split == train_split else (config.eval_limit, None)
        where, rows, taken = f"split {split!r} of digits", np.arange(len(labels)), 0
        if config.dev and split == train_split:
            rows, dev = carve(None, len(rows), config.dev, config.few_shot_seed)
            picked[DEV], taken = Examples({"pixel_values": images[dev]}, labels[dev]), len(dev)
        if shots is not None:
            known = np.full(len(labels), -1, np.int64)
            known[rows] = labels[rows]
            rows = few_shot(known, classes.labels, shots, config.few_shot_seed, where)
        rows = limited(rows, limit, config.few_shot_seed, f"limit {split}")
        picked[split] = Examples({"pixel_values": images[rows]}, labels[rows])
        left_out = {_TAKEN: taken, _limit(split == train_split): len(labels) - len(rows) - taken}
        left_out = {why: n for why, n in left_out.items() if n}
        readings[split] = Reading((("the package's digits", len(labels)),), len(rows), left_out)
    notes += head_note(classes, head, True)
    splits = {s: picked[s] for s in dict.fromkeys([*eval_splits, *([DEV] if config.dev else [])])}
    return Task(
        config.name,
        classes.labels,
        picked[train_split],
        splits,
        array_form(),
        metrics=metrics,
        objective=reward(config),
        readings=readings,
        notes=notes,
    )
