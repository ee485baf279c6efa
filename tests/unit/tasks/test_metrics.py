"""Metrics against known pairs, the packages that define them, and what a user's own may do."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import f1_score

from hpcfed.errors import ConfigError
from hpcfed.tasks.metrics import METRICS, Answered, find_metric, unique_rouge_l

WORDS = st.lists(st.sampled_from(["The", "cat", "sat", "sits", "on", "mats", "a.", "No."]), max_size=8).map(" ".join)


def said(text: str, *references: str) -> Answered:
    return Answered(None, text, (), references)


def chose(chosen: int, *right: int) -> Answered:
    return Answered(chosen, str(chosen), right, tuple(map(str, right)))


def one(name: str, answer: Answered) -> float:
    each = find_metric(name).each
    assert each
    return each(answer)


@pytest.mark.parametrize(
    ("text", "references", "f1", "em"),
    [
        ("Denver Broncos", ["Denver Broncos"], 1, 1),
        ("The Denver Broncos!", ["denver broncos"], 1, 1),
        ("an apple, a day", ["apple day"], 1, 1),
        ("Broncos", ["Denver Broncos"], 2 / 3, 0),
        ("the the cat cat", ["cat"], 2 / 3, 0),  # a bag: the second cat is wrong
        ("cat cat dog", ["cat dog dog"], 2 / 3, 0),
        ("theatre", ["the atre"], 0, 0),  # an article is a word
        ("U.S.A.", ["USA"], 1, 1),
        ("well-known", ["well known"], 0, 0),  # punctuation leaves no space
        ("Café  MÜNCHEN", ["café münchen"], 1, 1),
        ("“Paris”", ["Paris"], 0, 0),  # curly quotes are no ASCII punctuation
        ("twelve", ["12", "twelve", "a dozen"], 1, 1),
        ("dozen eggs", ["12", "twelve", "a dozen"], 2 / 3, 0),
        ("", ["Paris"], 0, 0),
        ("a", ["the"], 0, 1),  # no word is left of either
        ("unknown", ["CANNOTANSWER", "unknown"], 0, 1),
        ("cannotanswer.", ["CANNOTANSWER"], 1, 1),
        ("no", ["no answer"], 0, 0),
        ("No answer", ["no answer"], 1, 1),
    ],
)
def test_f1_and_em_of_known_pairs(text: str, references: list[str], f1: float, em: float):
    answer = said(text, *references)
    assert one("f1", answer) == pytest.approx(f1, abs=1e-15) and one("em", answer) == em


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_rouge_l_is_the_packages(text: str, references: list[str]):
    score = RougeScorer(["rougeL"], use_stemmer=True).score
    best = max(score(reference, text)["rougeL"].fmeasure for reference in references)
    assert one("rougeL", said(text, *references)) == best


@pytest.mark.parametrize(
    ("text", "reference", "standard", "unique"),
    [
        ("Yes.", "yes", 1.0, 0.0),
        ("a a a a", "a", 0.4, 1.0),
        ("", "yes", 0.0, 0.0),
        ("...", "yes", 0.0, 0.0),
        ("yes", "", 0.0, 0.0),
        ("the cat sat", "the cat sat", 1.0, 1.0),
        ("sat. the cat", "the cat sat", 2 / 3, 1.0),  # each sentence has a subsequence of its own
        ("cats sit", "cat sits", 1.0, 0.0),
    ],
)
def test_fedkseeds_rouge_l_is_another(text: str, reference: str, standard: float, unique: float):
    answer = said(text, reference)
    assert one("rougeL", answer) == pytest.approx(standard)
    assert one("rougeL-fedkseed", answer) == unique_rouge_l(text, reference) == pytest.approx(unique, abs=1e-7)


def test_of_two_longest_subsequences_one_counts():
    """Of "a b" and "b a" both "a" and "b" are a longest common one: "a" is taken, so a second sentence may add "b"."""
    assert unique_rouge_l("a b", "b a") == pytest.approx(0.5, abs=1e-7)
    assert unique_rouge_l("a b. b", "b a") == pytest.approx(1, abs=1e-7)
    assert unique_rouge_l("a b. a", "b a") == pytest.approx(0.5, abs=1e-7)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_metrics_of_classes(pairs: list[tuple[int, int]]):
    answers = [chose(chosen, right) for chosen, right in pairs]
    chosen, right = np.array(pairs).T
    assert METRICS["accuracy"].whole(answers) == pytest.approx((chosen == right).mean())
    assert METRICS["macro-f1"].whole(answers) == f1_score(right, chosen, average="macro", zero_division=0)
    assert METRICS["em"].whole(answers) == METRICS["accuracy"].whole(answers)


def test_one_of_several_right_candidates_is_right():
    assert one("accuracy", chose(2, 0, 2)) == 1 and one("accuracy", chose(1, 0, 2)) == 0
    assert METRICS["macro-f1"].whole([chose(2, 0, 2), chose(0, 0)]) == 1
    assert one("greedy-match", chose(1, 1)) == 1 and one("greedy-match", chose(0, 1)) == 0


@pytest.mark.parametrize("name", ["accuracy", "macro-f1", "greedy-match"])
def test_a_text_has_no_number(name: str):
    with pytest.raises(ConfigError, match=f"{name} compares classes or candidates"):
        METRICS[name].whole([said("yes", "yes")])


OWN = """
import numpy, time, torch
half = lambda prediction, references: numpy.float32(0.5 if prediction in references else 0)
truth = lambda prediction, references: prediction in references
tensor = lambda prediction, references: torch.tensor(1.0)
def raises(prediction, references): return references[5]
def ends(prediction, references): raise SystemExit(0)
nothing = lambda prediction, references: None
text = lambda prediction, references: "0.5"
many = lambda prediction, references: torch.ones(2)
nan = lambda prediction, references: float("nan")
percent = lambda prediction, references: 50
negative = lambda prediction, references: -1e-9
few = lambda prediction: 1.0
slow = lambda prediction, references: time.sleep(3)
number = 0.5
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


@pytest.mark.parametrize(("name", "value"), [("half", 0.5), ("truth", 1.0), ("tensor", 1.0)])
def test_a_metric_of_the_users_own(own: str, name: str, value: float):
    assert find_metric(f"{own}:{name}").whole([said("yes", "no", "yes")]) == value


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("raises", "raised IndexError: list index out of range"),
        ("ends", "raised SystemExit: 0"),
        ("nothing", "gave None; it must be a number from 0 to 1"),
        ("text", "gave '0.5'; it must"),
        ("many", r"gave tensor\(\[1., 1.\]\); it must"),
        ("nan", "gave nan; it must"),
        ("percent", "gave 50; it must"),
        ("negative", "gave -1e-09; it must"),
        ("few", "raised TypeError: .* takes 1 positional argument"),
        ("slow", r"did not return within 0.05 s"),
    ],
)
def test_a_bad_metric_is_one_line(own: str, name: str, what: str):
    with pytest.raises(ConfigError, match=rf"^task.metrics='.*own.py:{name}': .* answer 'yes' to \['no'\] it {what}"):
        find_metric(f"{own}:{name}", limit=0.05).whole([said("yes", "no")])


def test_a_metric_that_never_returns_outside_the_main_thread(own: str):
    found = list[str]()

    def ask() -> None:
        with pytest.raises(ConfigError) as error:
            one_metric = find_metric(f"{own}:slow", limit=0.05)
            one_metric.whole([said("yes", "no")])
        found.append(str(error.value))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert "did not return" in found[0]


def test_what_is_no_metric(own: str):
    with pytest.raises(ConfigError, match="'rougel' is no metric; did you mean rougeL"):
        find_metric("rougel")
    with pytest.raises(ConfigError, match="a float is no function"):
        find_metric(f"{own}:number")
