"""How good an answer is: the metrics by name, of one example and of a whole split; and metrics of the user's own.

Formula  f1 = 2 p r / (p + r) over bags of words, em = equality, after SQuAD's normalisation (Rajpurkar et al. 2016)
         rougeL: of the longest common subsequence (Lin 2004), by the package rouge_score with Porter's stemmer
         rougeL-fedkseed: as FedKSeed (Qin et al. 2023) counts it: case sensitive, sentences end at ".", unique words
         macro-f1: the mean over classes of their F1 (scikit-learn)
Promise  a metric of one example is a number in [0, 1], or an error; with several references the best one counts
"""

from __future__ import annotations

import functools
import math
import re
import string
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.outside import is_outside, load_outside
from ..errors import ConfigError, did_you_mean, first_line

LIMIT = 60.0  # seconds that a metric of the user's own may take for one example
NO_ANSWER = ("CANNOTANSWER", "no answer")


@dataclass(frozen=True)
class Answered:
    """What a model answers to one example, and what would be right.

    chosen: number of the class or candidate; None: a generated text.  text: its words.
    right, references: the numbers and the texts that are right.
    """

    chosen: int | None
    text: str
    right: tuple[int, ...]
    references: tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """each: of one example, in [0, 1]; None: a metric of whole splits only.  whole: of all examples of a split."""

    name: str
    each: Callable[[Answered], float] | None
    whole: Callable[[Sequence[Answered]], float]


def mean(values: Sequence[float]) -> float:
    """The mean of a sum that is rounded once: the same in any order. NaN where not all are finite, or infinity."""
    finite = all(map(math.isfinite, values))
    return (math.fsum(values) if finite else sum(values)) / len(values)


def _of_each(name: str, each: Callable[[Answered], float]) -> Metric:
    return Metric(name, each, lambda answers: mean([each(answer) for answer in answers]))


def _number(name: str, answer: Answered) -> int:
    """The number of the answer; a metric of numbers says nothing of a text."""
    if answer.chosen is None:
        raise ConfigError(
            f"task.metrics: {name} compares classes or candidates, and this task's answers are texts; use em or f1"
        )
    return answer.chosen


def _accuracy(answer: Answered) -> float:
    return float(_number("accuracy", answer) in answer.right)


def _greedy_match(answer: Answered) -> float:
    return float(_number("greedy-match", answer) == 1)


def _macro_f1(answers: Sequence[Answered]) -> float:
    """Over the classes that are right or answered somewhere in the split; of several right ones the answered counts."""
    from sklearn.metrics import f1_score

    chosen = [_number("macro-f1", answer) for answer in answers]
    right = [c if c in answer.right else answer.right[0] for c, answer in zip(chosen, answers, strict=True)]
    return float(f1_score(right, chosen, average="macro", zero_division=0))


def normalised(text: str) -> str:
    """Lower case, without string.punctuation, articles a space, white space collapsed: SQuAD's order of steps."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _same(text: str, reference: str) -> float:
    return float(normalised(text) == normalised(reference))


def _overlap(text: str, reference: str) -> float:
    """F1 of the two bags of words; 0 if they share none, also where both are empty."""
    said, wanted = Counter(normalised(text).split()), Counter(normalised(reference).split())
    common = (said & wanted).total()
    return 2 * common / (said.total() + wanted.total()) if common else 0.0


def _em(answer: Answered) -> float:
    return max(_same(answer.text, reference) for reference in answer.references)


def _f1(answer: Answered) -> float:
    if answer.references[0] in NO_ANSWER:
        return _same(answer.text, answer.references[0])
    return max(_overlap(answer.text, reference) for reference in answer.references)


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def _rouge_l(answer: Answered) -> float:
    score = _rouge_scorer().score
    return max(float(score(reference, answer.text)["rougeL"].fmeasure) for reference in answer.references)


def _rouge_l_unique(answer: Answered) -> float:
    return max(unique_rouge_l(answer.text, reference) for reference in answer.references)


def unique_rouge_l(text: str, reference: str) -> float:
    """Rouge-L as the package `rouge` 1.0.1 counts it, of summaries; 0 where it has nothing to compare.

    The numerator is the number of different words in the longest common subsequences of all pairs of sentences, the
    denominators are those of different words; a sentence of white space is one empty word.
    """
    said, wanted = ([part.split() or [""] for part in whole.split(".") if part] for whole in (text, reference))
    if not said or not wanted:
        return 0.0
    common = {word for theirs in wanted for ours in said for word in _common_words(theirs, ours)}
    precision, recall = (len(common) / len({word for words in side for word in words}) for side in (said, wanted))
    return 2 * precision * recall / (precision + recall + 1e-8)


def _common_words(wanted: Sequence[str], said: Sequence[str]) -> list[str]:
    """A longest common subsequence, from its end; where two are as long, the one that leaves words of `said` out."""
    length = [[0] * (len(said) + 1) for _ in range(len(wanted) + 1)]
    for i, theirs in enumerate(wanted):
        for j, ours in enumerate(said):
            length[i + 1][j + 1] = length[i][j] + 1 if theirs == ours else max(length[i][j + 1], length[i + 1][j])
    words, i, j = list[str](), len(wanted), len(said)
    while i and j:
        if wanted[i - 1] == said[j - 1]:
            words.append(wanted[i - 1])
            i, j = i - 1, j - 1
        elif length[i - 1][j] > length[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


METRICS = {
    metric.name: metric
    for metric in (
        _of_each("accuracy", _accuracy),
        _of_each("f1", _f1),
        _of_each("em", _em),
        Metric("macro-f1", None, _macro_f1),
        _of_each("rougeL", _rouge_l),
        _of_each("rougeL-fedkseed", _rouge_l_unique),
        _of_each("greedy-match", _greedy_match),
    )
}


#: Metrics of the numbers of classes or candidates.
OF_NUMBERS = ("accuracy", "macro-f1", "greedy-match")


def find_metric(name: str, setting: str = "task.metrics", limit: float = LIMIT, tell: bool = True) -> Metric:
    """The metric of that name, or the user's function that "FILE.py:NAME" means.

    The user's: (prediction: str, references: list[str]) -> number in [0, 1], within `limit` seconds an example.
    setting: whose value `name` is, for messages.  tell: they may say what it was asked and what it gave.
    Raises ConfigError, then and when the metric does something else.
    """
    if not is_outside(name):
        if name not in METRICS:
            raise ConfigError(f"{setting}={name!r} is no metric{did_you_mean(name, METRICS)}; or FILE.py:NAME")
        return METRICS[name]
    function = load_outside(setting, name)
    if not callable(function):
        raise ConfigError(f"{setting}={name!r}: a {type(function).__name__} is no function (prediction, references)")
    return _of_each(name, lambda answer: _ask(f"{setting}={name!r}", function, answer, limit, tell))


def _ask(what: str, function: Callable[[str, list[str]], Any], answer: Answered, limit: float, tell: bool) -> float:
    """The user's metric of one example, asked in a thread: one that never returns cannot hold the run."""
    given, raised = list[Any](), list[BaseException]()

    def call() -> None:
        try:
            given.append(function(answer.text, list(answer.references)))
        except BaseException as error:  # whatever the user's code raises is told
            raised.append(error)

    asked = threading.Thread(target=call, name="metric", daemon=True)
    asked.start()
    asked.join(limit)
    shown = f"the answer {answer.text[:80]!r} to {[text[:80] for text in answer.references[:3]]!r}"
    of = f"{what}: of {shown if tell else 'an answer'} it"
    if raised:
        said = f": {first_line(raised[0])}" if tell else ""
        raise ConfigError(f"{of} raised {type(raised[0]).__name__}{said}")
    if not given:
        raise ConfigError(f"{of} did not return within {limit:g} s")
    try:
        value = math.nan if isinstance(given[0], str | bytes) else float(given[0])
    except (TypeError, ValueError, RuntimeError):  # the last is what a tensor of several numbers raises
        value = math.nan
    if not 0 <= value <= 1:
        gave = f"{given[0]!r:.60}" if tell else "something else"
        raise ConfigError(f"{of} gave {gave}; it must be a number from 0 to 1")
    return value
