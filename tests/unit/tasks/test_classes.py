"""Which classes a task has, whose order is theirs, and which word belongs to which."""

from __future__ import annotations

import pytest

from hpcfed.errors import ConfigError, DataError
from hpcfed.model import HeadLabels
from hpcfed.tasks.classes import found_classes, head_note, ordered, words_note, words_of
from hpcfed.tasks.labels import Classes, class_indices

NLI = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")


def head(*names: str, count: int = 0, fault: str = "") -> HeadLabels:
    return HeadLabels("model.name='m'", count or len(names), names, fault)


def found(values, words=None, own=None, notes=None):
    return found_classes([("w", values)], None, "column 'label'", words, own, [] if notes is None else notes)


@pytest.mark.parametrize(
    ("values", "words", "own", "labels"),
    [
        ([1, 2, 3, 4], None, None, "1 2 3 4"),
        ([0, 1, 2], None, None, "0 1 2"),
        ([0, 2], None, None, "0 2"),
        ([0, 2], None, head(count=3), "0 1 2"),  # the checkpoint has a class that no example has
        ([0, 2], ["a", "b", "c"], None, "0 1 2"),
        ([0, 2], ["a", "b"], None, "0 2"),
        ([1, 2, 4], ["a", "b", "c", "d"], None, "1 2 3 4"),
        ([-1, 1], ["a", "b"], None, "-1 1"),
        ([0, 2], {"0": "a", "1": "b", "2": "c"}, None, "0 1 2"),
        (["b", "a"], {"b": "x", "a": "y", "c": "z"}, None, "a b c"),
        ([True, False], None, None, "False True"),
        ([2, "x", 1], None, None, "1 2 x"),
    ],
)
def test_the_classes_of_a_custom_task(values, words, own, labels):
    classes = found(values, words, own)
    assert classes.labels == labels.split()
    assert class_indices(values, classes, "w").tolist() == [classes.labels.index(str(v)) for v in values]


@pytest.mark.parametrize(
    ("values", "words", "error", "says"),
    [
        (range(200_000, 200_060), None, DataError, "column 'label' holds 60 different values in 60 rows"),
        ([f"a film {i}" for i in range(30)] + ["a"] * 20, None, DataError, "look like ids or texts"),
        ([f"{i}.0" for i in range(11)], None, DataError, "task.label names the column"),
        ([1, 1, 1], None, DataError, "the labels name 1 classes"),
        ([], None, DataError, "the labels name 0 classes"),
        ([1, 2, 3, 4], list("abcde"), ConfigError, r"say which word is whose: task.verbalizers = {1 = \"a\", ...}"),
    ],
)
def test_labels_that_do_not_make_classes(values, words, error, says):
    with pytest.raises(error, match=says):
        found(list(values), words)


@pytest.mark.parametrize(
    ("labels", "own", "now", "index"),
    [
        (("entailment", "neutral", "contradiction"), NLI, NLI, [2, 1, 0]),
        (("negative", "positive"), ("NEGATIVE", "POSITIVE"), ("NEGATIVE", "POSITIVE"), [0, 1]),
        (("negative", "positive"), ("positive", "negative"), ("positive", "negative"), [1, 0]),
        (("very negative", "not_so"), ("Not-so", "Very_Negative"), ("Not-so", "Very_Negative"), [1, 0]),
        (("a", "b"), (), ("a", "b"), [0, 1]),  # the model only numbers them
        (("0", "1", "2"), NLI, NLI, [0, 1, 2]),
        (("0", "1"), ("1", "0"), ("1", "0"), [1, 0]),
    ],
)
def test_the_order_is_that_of_the_head(labels, own, now, index):
    classes = ordered(Classes.named(labels), head(*own, count=len(labels)), [])
    assert classes.labels == list(now)
    assert class_indices(list(range(len(labels))), classes, "w").tolist() == index
    assert class_indices([name for name in labels if not name.isdigit()], classes, "w").tolist() in ([], index)


def test_numbers_from_one_are_the_models_names_in_order():
    notes: list[str] = []
    classes = ordered(found([1, 2, 3]), head(*NLI), notes)
    assert classes.labels == list(NLI) and class_indices([3, 1], classes, "w").tolist() == [2, 0]
    assert notes == ["labels 1, 2, 3 are what the model calls CONTRADICTION, NEUTRAL, ENTAILMENT, in this order"]


@pytest.mark.parametrize(
    ("labels", "own", "says"),
    [
        (("ham", "spam"), head("NEGATIVE", "POSITIVE"), "are NEGATIVE, POSITIVE, those of the data ham, spam: none in"),
        (("negative", "positive"), head("negative", "neutral"), "only negative in common"),
        (("False", "True"), head("no", "yes"), "none in common; name the data's as the model does"),
        (("0", "1", "2"), head("1", "2", "3"), "only 1, 2 in common"),
        (("cat", "ship"), head("ship", "dog"), "write the data's names into id2label and label2id"),
        (("a", "b"), head(count=2, fault="id2label has 'a' 2 times"), "model.name='m': id2label has 'a' 2 times"),
    ],
)
def test_names_that_contradict_each_other(labels, own, says):
    with pytest.raises(ConfigError, match=says):
        ordered(Classes.named(labels), own, [])


def test_a_new_head_is_said():
    two = Classes.named("ab")
    assert ordered(two, head(*NLI), []) is two and ordered(two, head(count=3, fault="x"), []) is two
    assert head_note(two, head(*NLI), True) == ["a new head for 2 classes: the model's own has 3"]
    assert "the model comes without one" in head_note(two, None, True)[0]
    assert "not the language model's words, answers: task custom has no task.prompt" in head_note(two, None, False)[0]
    assert head_note(two, head("a", "b"), True) == []


def test_words_belong_to_classes_by_name():
    classes = Classes.named(["complaint", "very good", "7"])
    words = {"7": "c", "very_good": "b", "complaint": "a"}
    assert words_of(words, classes, "t") == ("a", "b", "c") and words_note(words, classes) == []
    assert words_of(["a", "b", "c"], classes, "t") == ("a", "b", "c") and words_of(None, classes, "t") is None
    assert words_note(["a", "b", "c"], classes) == [
        'task.verbalizers is read as {complaint = "a", "very good" = "b", 7 = "c"}'
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"complaint": "a", "prase": "b"}, "'prase' is no class; did you mean praise?"),
        ({"complaint": "a"}, "class 'praise' has no word"),
        ({"complaint": "a", "praise": "b", "else": "c"}, "'else' is no class"),
        ({"complaint": "a", "praise": "b", "Praise": "c"}, "'Praise' is class 'praise', which has a word already"),
        ({"": "a", "praise": "b"}, "'' is no class"),
        (["a"], r"task t has 2 classes \(complaint, praise\), a word for each"),
        (["a", "b", "c"], "a word for each"),
    ],
)
def test_words_that_do_not_fit(words, says):
    with pytest.raises(ConfigError, match=says):
        words_of(words, Classes.named(["complaint", "praise"]), "t")


STARS, NEWS = ("1 star", "2 stars", "3 stars"), ("World", "Sports", "Business", "Sci")


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([1, 2], STARS, [0, 1]),
        ([2, 3, 3], STARS, [1, 2, 2]),
        ([1, 2, 3], STARS, [0, 1, 2]),
        ([0, 2], STARS, [0, 2]),  # a 0 says that they count from 0
        ([1, 2, 4], NEWS, [0, 1, 3]),
        ([0, 1, 3], NEWS, [0, 1, 3]),
        ([0, 1], NEWS, [0, 1]),
        (["3 stars", "1 star"], STARS, [2, 0]),
        (["sci", "WORLD"], NEWS, [3, 0]),
        ([1, 2], (), [1, 2]),  # a head without names numbers its outputs from 0
    ],
)
def test_data_that_lack_classes_of_the_head_keep_the_others_places(values, names, expected):
    own = head(*names, count=4 if not names else 0)
    classes = ordered(found(values, None, own), own, [])
    assert class_indices(values, classes, "w").tolist() == expected and len(classes.labels) == own.count


@pytest.mark.parametrize("values", [[1, 2], [1, 2, 3], [2, 3], [3, 1]])
def test_numbers_that_may_count_from_0_or_from_1_are_refused(values):
    with pytest.raises(ConfigError, match=r"its classes are World, .*; is \d '\w+' or '\w+'\? Write the names"):
        found(values, None, head(*NEWS))


def test_a_word_for_a_class_that_no_example_has():
    notes: list[str] = []
    assert found(["a", "b"], {"a": "x", "b": "y", "zebra": "z"}, None, notes).labels == ["a", "b", "zebra"]
    assert notes == ["no example is of class zebra, which task.verbalizers names"]
    with pytest.raises(ConfigError, match=r"'prase' is no class of the data.* did you mean praise"):
        found(["praise", "complaint"], {"praise": "x", "complaint": "y", "prase": "z"})
