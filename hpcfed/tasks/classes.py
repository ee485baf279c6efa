"""Which classes a task has, in which order, and which word belongs to which.

    named       those of the table
    custom      what the data set calls them, else the distinct labels of the splits that are read
    with a classifier's own head    its names and its order, where data and model call the classes alike: class i of
                the task is output i of the model, in training, in scores, in the orbit and in the model that is saved

Promise  what the task calls class i, the model's configuration calls output i: a name that would have to be guessed is
         an error
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..config.files import inline
from ..errors import ConfigError, DataError, did_you_mean
from .labels import Classes, alike, class_names, label_of, spell

MANY = 10  # classes; more of them than half as many examples are no classes
MOST_TEXT = 2**18  # characters in the names of all classes: an orbit's header holds them


class Head(Protocol):
    """The classifier's head that a checkpoint has (model/labels.py). names: of its outputs; empty: it numbers them.

    fault: why they cannot be told.  model: how messages call it.
    """

    @property
    def model(self) -> str: ...

    @property
    def count(self) -> int: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def fault(self) -> str: ...


Columns = Sequence[tuple[str, Sequence[Any]]]  # of each split: how messages call it, its labels
Words = Mapping[str, str] | Sequence[str] | None


def found_classes(
    columns: Columns, declared: Sequence[str] | None, column: str, words: Words, head: Head | None, notes: list[str]
) -> Classes:
    """The classes of a custom task, as its data number them.

    declared: what the data set itself calls them.  column: how messages call where labels stand.  words:
    task.verbalizers, whose number or names tell of classes that no example has; so does the number of a head's outputs.
    Raises DataError, ConfigError.
    """
    if declared is not None:
        return Classes.named(declared)
    names = class_names(columns)
    _check_not_ids(names, columns, column)
    keys = [label_of(key) for key in words] if isinstance(words, Mapping) else []
    named = [key for key in keys if key is not None]
    if all(isinstance(name, int) for name in names):
        numbers = [int(name) for name in names]
        if all(isinstance(name, int) for name in named):
            numbers = sorted({*numbers, *(int(name) for name in named)})
        numbers = _counted(numbers, words, head)
        if numbers != list(range(len(numbers))):
            notes.append(f"{column}: the numbers {spell([str(n) for n in numbers])} are {len(numbers)} classes")
        classes = Classes([str(n) for n in numbers], {n: i for i, n in enumerate(numbers)}, {})
    else:
        labels = [str(name) for name in names]
        known = {alike(label) for label in labels}
        extra = [str(name) for name in named if alike(str(name)) not in known]
        _note_words_alone(extra, labels, notes)
        labels = sorted(labels + extra)
        spelt = {label: label_of(label) for label in labels}
        numbered = {number: labels.index(label) for label, number in spelt.items() if isinstance(number, int)}
        if numbered:
            notes.append(f"{column}: numbers and words are {len(labels)} classes, {spell(labels)}")
        classes = Classes(labels, numbered, {alike(label): i for i, label in enumerate(labels)})
    if len(classes.labels) < 2:
        raise DataError(f"{columns[0][0]}: the labels name {len(classes.labels)} classes; there must be two at least")
    return classes


def _note_words_alone(extra: Sequence[str], labels: Sequence[str], notes: list[str]) -> None:
    """Classes that task.verbalizers alone names: said, and refused where one looks like a mistyped name of another."""
    for name in extra:
        if "did you mean" in (hint := did_you_mean(name, labels)):
            raise ConfigError(f"task.verbalizers: {name!r} is no class of the data{hint}")
    if extra:
        notes.append(f"no example is of class {spell(extra)}, which task.verbalizers names")


def _counted(numbers: list[int], words: Words, head: Head | None) -> list[int]:
    """The numbers of the classes, where those that some example has are `numbers`, with those that none has."""
    if not numbers or numbers[0] < 0 or isinstance(words, Mapping):
        return numbers
    if head is not None and {*numbers} <= {*(named := _numbers_in(head.names))}:
        return sorted(named)
    if head is not None and numbers[-1] <= head.count:
        _check_begin(numbers, head)
        first = int(numbers[-1] == head.count)
        return list(range(first, first + head.count)) if numbers[0] >= first else numbers
    if words is None or len(words) == len(numbers) or numbers[-1] > len(words):
        return numbers
    if numbers[0] > 0 and numbers[-1] == len(words):
        return list(range(1, len(words) + 1))
    if numbers[0] > 0:  # from 0, or from 1?
        met, like = spell([str(n) for n in numbers]), f"{{{numbers[0]} = {inline(words[0])}, ...}}"
        raise ConfigError(
            f"task.verbalizers={list(words)}: {len(words)} words, and the labels are {met}; say which word is whose: "
            f"task.verbalizers = {like}"
        )
    return list(range(len(words))) if numbers[-1] < len(words) else numbers


def _check_begin(numbers: Sequence[int], head: Head) -> None:
    """ConfigError where some of a head's classes might be counted from 0 or from 1, and its names have no numbers."""
    if numbers[0] > 0 and numbers[-1] < head.count and head.names:
        met = spell([str(n) for n in numbers])
        raise ConfigError(
            f"{head.model}: its classes are {spell(head.names)}, the labels of the data {met}; "
            f"is {numbers[0]} {head.names[numbers[0] - 1]!r} or {head.names[numbers[0]]!r}? Write the names as labels"
        )


def _numbers_in(names: Sequence[str]) -> dict[int, int]:
    """{1: 0, 2: 1} of "1 star", "2 stars": a number of its own in each name -> its place; empty if not."""
    found = [re.findall(r"[0-9]+", name) for name in names]
    numbers = {int(own[0]): i for i, own in enumerate(found) if len(own) == 1}
    return numbers if len(numbers) == len(names) else {}


def _check_not_ids(names: Sequence[Any], columns: Columns, column: str) -> None:
    rows = sum(len(values) for _, values in columns)
    text = [str(name) for name in names]
    if (len(text) > MANY and 2 * len(text) > rows) or sum(map(len, text)) > MOST_TEXT:
        raise DataError(
            f"{columns[0][0]}: {column} holds {len(text)} different values in {rows} rows ({spell(text, 3)}); they "
            "look like ids or texts, not like classes; task.label names the column with the class"
        )


def ordered(classes: Classes, head: Head | None, notes: list[str]) -> Classes:
    """The classes in the order, and with the names, of a classifier's own head, if it has one for so many.

    Raises ConfigError if its names are not the task's.
    """
    count, own = len(classes.labels), [] if head is None else list(head.names)
    if head is None or head.count < count:
        return classes
    if head.count > count:
        return _within(classes, own, head, notes)
    if head.fault:
        raise ConfigError(f"{head.model}: {head.fault}; its config.json must call each class by one name of its own")
    if not own:
        return classes
    place = {alike(name): i for i, name in enumerate(own)}
    known = [alike(label) for label in classes.labels]
    if set(known) == set(place) and len(place) == count:
        return _moved(classes, own, [place[name] for name in known])
    common = set(known) & set(place)
    named = _numbers_in(own)
    if not common and named and {*classes.numbers} <= {*named} and _all_numbers(classes):
        return _moved(classes, own, [named[int(label)] for label in classes.labels])
    if not common and _all_numbers(classes):
        if sorted(classes.numbers) != list(range(count)):
            notes.append(f"labels {spell(classes.labels)} are what the model calls {spell(own)}, in this order")
        return _moved(classes, own, list(range(count)))
    shared = f"only {spell(sorted(common))} in common" if common else "none in common"
    raise ConfigError(
        f"{head.model}: its classes are {spell(own)}, those of the data {spell(classes.labels)}: {shared}; name the "
        "data's as the model does, or write the data's names into id2label and label2id of the model's config.json"
    )


def _all_numbers(classes: Classes) -> bool:
    return all(isinstance(label_of(label), int) for label in classes.labels)


def _within(classes: Classes, own: Sequence[str], head: Head, notes: list[str]) -> Classes:
    """The head's classes, where those of the data are some of them by name; else the data's, for a new head."""
    place = {alike(name): i for i, name in enumerate(own)}
    known = [alike(label) for label in classes.labels]
    if head.fault or len(place) != head.count or not set(known) <= set(place):
        return classes
    notes.append(f"the model's {head.count} classes are {spell(own)}; the data name {spell(classes.labels)}")
    return _moved(classes, own, [place[name] for name in known])


def _moved(classes: Classes, own: Sequence[str], place: Sequence[int]) -> Classes:
    """place: of each class among the model's `own`."""
    numbers = {number: place[i] for number, i in classes.numbers.items()}
    words = {word: place[i] for word, i in classes.words.items()}
    return Classes(list(own), numbers, words | {alike(name): i for i, name in enumerate(own)})


def head_note(classes: Classes, head: Head | None, asked: bool) -> list[str]:
    """What is said of a head that the checkpoint does not have.  asked: the recipe wants a new one."""
    count = len(classes.labels)
    if head is None:
        return [
            f"a new classifier head for {count} classes"
            + (
                ": the model comes without one"
                if asked
                else ", not the language model's words, answers: task custom has no task.prompt"
            )
        ]
    return [] if head.count == count else [f"a new head for {count} classes: the model's own has {head.count}"]


def words_of(words: Words, classes: Classes, name: str) -> tuple[str, ...] | None:
    """task.verbalizers in the order of the classes of task `name`; None: there are none.  Raises ConfigError."""
    if words is None:
        return None
    if not isinstance(words, Mapping):
        if len(words) != len(classes.labels):
            raise ConfigError(
                f"task.verbalizers={list(words)}: task {name} has {len(classes.labels)} classes "
                f"({spell(classes.labels)}), a word for each"
            )
        return tuple(words)
    place = {alike(label): label for label in classes.labels}
    found: dict[str, str] = {}
    unknown = []
    for key, word in words.items():
        label = place.get(alike(key), place.get(str(label_of(key))))
        if label is None:
            unknown.append(key)
        elif label in found:
            raise ConfigError(f"task.verbalizers: {key!r} is class {label!r}, which has a word already; give it one")
        else:
            found[label] = word
    if unknown:
        raise ConfigError(f"task.verbalizers: {unknown[0]!r} is no class{did_you_mean(unknown[0], classes.labels)}")
    if missing := [label for label in classes.labels if label not in found]:
        raise ConfigError(f"task.verbalizers: class {missing[0]!r} has no word; give every class one")
    return tuple(found[label] for label in classes.labels)


def words_note(words: Words, classes: Classes) -> list[str]:
    """A bare list as the map that it makes."""
    if words is None or isinstance(words, Mapping):
        return []
    return [f"task.verbalizers is read as {inline(dict(zip(classes.labels, words, strict=True)))}"]
