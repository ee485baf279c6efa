"""The tasks known by name: where their data lie, what the columns and classes are called, and how they are asked.

Prompts are templates: {column} is a text column of the example, {column:form} the same after one of prompts.FORMS, and
{verbalizer} or {answer} the place of the answer (for a causal language model always the end). Causal prompts and
verbalisers of the tasks of SuperGLUE, of sst2, squad and drop are MeZO's (Malladi et al. 2023), masked ones those of
LM-BFF (Gao et al. 2021), which MeZO's RoBERTa experiments use; where neither has one, the nearest relative's is taken.
natural-instructions and dolly are asked as FedKSeed's code does, alpaca as Stanford's, arc and mmlu as
lm-evaluation-harness without examples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from . import shapes, unfold
from .shapes import Shape
from .unfold import Unfold


@dataclass(frozen=True)
class Asked:
    """A prompt and, in the order of the classes, the verbalisers that answer it."""

    prompt: str
    verbalizers: tuple[str, ...]


@dataclass(frozen=True)
class Open:
    """How a task is asked whose answers differ from example to example.

    form: choices: which of the candidates; answer, generate: in words of the model's own, scored by the loss alone, or
    decoded.  prompt: ends with {answer}.
    choices: columns that hold candidates, or one with a list of them.  choice_labels: column that says what the label
    calls them.  shape: see shapes.py.
    ends: what ends an answer: "eos", a text, or "" for nothing.  most: tokens of a generated answer.
    tail: what is too long loses its end instead of its beginning.
    objective: what is trained on: cross-entropy over the "candidates", or of the right "answer"'s tokens.
    metrics: the first above all.
    """

    form: Literal["choices", "answer", "generate"]
    prompt: str = ""
    choices: tuple[str, ...] = ()
    choice_labels: str | None = None
    shape: Shape | None = None
    ends: str = ""
    most: int = 50
    tail: bool = False
    objective: Literal["candidates", "answer"] = "answer"
    metrics: tuple[str, ...] = ("accuracy",)


@dataclass(frozen=True)
class TaskInfo:
    """data: hub name, "NAME:CONFIG" where the data set has several.  text: the text columns (empty: images).

    label: column of the class; of an open task, of the right candidate or of the answer's text.
    labels: names of the classes.  causal, masked: how language models are asked for them.  open: in place of classes.
    unlabelled: labels that mean "nobody knows"; such rows are left out. (): an empty list.
    length: tokens beyond which an example is cut.  group: column of what must not be divided.  first: text columns
    that may hold a list, whose first text counts.  absent: text columns that may be missing in a row.  unfold: what
    makes rows of those of the official files, where these are nested.  held_out: column and values that are kept
    from the clients and evaluated as the split held_out.
    """

    data: str | None
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    eval_splits: tuple[str, ...] = ("validation",)
    causal: Asked | None = None
    masked: Asked | None = None
    unlabelled: tuple[int | str | tuple[()], ...] = ()
    revision: str | None = None
    open: Open | None = None
    length: int | None = None
    group: str | None = None
    first: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unfold: Unfold | None = None
    held_out: tuple[str, tuple[str, ...]] | None = None


_REVIEW = "{%s} It was {verbalizer}"
_INFER = 'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n{verbalizer}'
_PAIR = "{%s:bare}? {verbalizer}, {%s:lower}"
_RESPONSE = "### Instruction:\n{instruction}\n\n{block}### Response:{answer}"
_NI = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\n{definition}\n\n### Input:\n{input}\n\n"
    "### Response:{answer}"
)
_NO_YES = ("False", "True")
_INSTRUCTED = Open(
    "generate",
    "{opening}\n\n" + _RESPONSE,
    ends="eos",
    most=128,
    tail=True,
    metrics=("rougeL", "rougeL-fedkseed", "em"),
)
_ARC = Open(
    "choices",
    "Question: {question}\nAnswer: {answer}",
    ("choices.text",),
    "choices.label",
    objective="candidates",
)
_FIVE = ("terrible", "bad", "okay", "good", "great")
_KINDS = ("Expression", "Entity", "Description", "Human", "Location", "Number")
_NLI = ("entailment", "neutral", "contradiction")
_ANIMALS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# fmt: off
_CIFAR100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard",
    "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum",
    "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf",
    "woman", "worm",
)
# fmt: on

TASKS: dict[str, TaskInfo] = {
    "digits": TaskInfo(None, (), "label", tuple("0123456789"), ("test",)),
    "cifar10": TaskInfo("uoft-cs/cifar10", (), "label", _ANIMALS, ("test",)),
    "cifar100": TaskInfo("uoft-cs/cifar100", (), "fine_label", _CIFAR100, ("test",)),
    "sst2": TaskInfo(
        "stanfordnlp/sst2",
        ("sentence",),
        "label",
        ("negative", "positive"),
        causal=Asked(_REVIEW % "sentence", ("terrible", "great")),
        masked=Asked(_REVIEW % "sentence" + ".", ("terrible", "great")),
        unlabelled=(-1,),
    ),
    "sst5": TaskInfo(
        "SetFit/sst5",
        ("text",),
        "label",
        ("very negative", "negative", "neutral", "positive", "very positive"),
        causal=Asked(_REVIEW % "text", _FIVE),
        masked=Asked(_REVIEW % "text" + ".", _FIVE),
    ),
    "trec": TaskInfo(
        "CogComp/trec",
        ("text",),
        "coarse_label",
        ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
        ("test",),
        causal=Asked(
            "{text} It is about {verbalizer}", ("expression", "entity", "description", "human", "location", "number")
        ),
        masked=Asked("{verbalizer}: {text}", _KINDS),
        revision="refs/convert/parquet",  # the hub's own copy of a data set that is otherwise a script
    ),
    "rte": TaskInfo(
        "nyu-mll/glue:rte",
        ("sentence1", "sentence2"),
        "label",
        ("entailment", "not_entailment"),
        causal=Asked('{sentence1}\nDoes this mean that "{sentence2}" is true? Yes or No?\n{verbalizer}', ("Yes", "No")),
        masked=Asked(_PAIR % ("sentence1", "sentence2"), ("Yes", "No")),
        unlabelled=(-1,),
    ),
    "cb": TaskInfo(
        "aps/super_glue:cb",
        ("premise", "hypothesis"),
        "label",
        ("entailment", "contradiction", "neutral"),
        causal=Asked(_INFER, ("Yes", "No", "Maybe")),
        masked=Asked(_PAIR % ("premise", "hypothesis"), ("Yes", "No", "Maybe")),
        unlabelled=(-1,),
    ),
    "boolq": TaskInfo(
        "aps/super_glue:boolq",
        ("passage", "question"),
        "label",
        ("False", "True"),
        causal=Asked("{passage} {question:ask}\n{verbalizer}", ("No", "Yes")),
        masked=Asked("{passage} {question:ask} {verbalizer}.", ("No", "Yes")),
        unlabelled=(-1,),
    ),
    "snli": TaskInfo(
        "stanfordnlp/snli",
        ("premise", "hypothesis"),
        "label",
        _NLI,
        causal=Asked(_INFER, ("Yes", "Maybe", "No")),
        masked=Asked(_PAIR % ("premise", "hypothesis"), ("Yes", "Maybe", "No")),
        unlabelled=(-1, "-"),
    ),
    "mnli": TaskInfo(
        "nyu-mll/glue:mnli",
        ("premise", "hypothesis"),
        "label",
        _NLI,
        ("validation_matched",),
        causal=Asked(_INFER, ("Yes", "Maybe", "No")),
        masked=Asked(_PAIR % ("premise", "hypothesis"), ("Yes", "Maybe", "No")),
        unlabelled=(-1, "-"),
    ),
    "wsc": TaskInfo(
        "aps/super_glue:wsc.fixed",
        ("text", "span1_text", "span2_text"),
        "label",
        _NO_YES,
        causal=Asked(
            '{text}\nIn the previous sentence, does the pronoun "{span2_text:small}" refer to {span1_text}? Yes or '
            "No?\n{verbalizer}",
            ("No", "Yes"),
        ),
        unlabelled=(-1,),
        unfold=unfold.WSC,
    ),
    "wic": TaskInfo(
        "aps/super_glue:wic",
        ("word", "sentence1", "sentence2"),
        "label",
        _NO_YES,
        causal=Asked(
            'Does the word "{word}" have the same meaning in these two sentences? Yes, No?\n{sentence1}\n{sentence2}\n'
            "{verbalizer}",
            ("No", "Yes"),
        ),
        unlabelled=(-1,),
    ),
    "multirc": TaskInfo(
        "aps/super_glue:multirc",
        ("paragraph", "question", "answer"),
        "label",
        _NO_YES,
        causal=Asked(
            '{paragraph}\nQuestion: {question}\nI found this answer "{answer}". Is that correct? Yes or No?\n'
            "{verbalizer}",
            ("No", "Yes"),
        ),
        unlabelled=(-1,),
        length=1024,
        group="paragraph",
        unfold=unfold.MULTIRC,
    ),
    "copa": TaskInfo(
        "aps/super_glue:copa",
        ("premise", "question"),
        "label",
        (),
        open=Open("choices", "{premise:undot} {joint} {answer}", ("choice1", "choice2"), shape=shapes.copa),
        unlabelled=(-1,),
    ),
    "record": TaskInfo(
        "aps/super_glue:record",
        ("passage", "query"),
        "answers",
        (),
        open=Open("choices", "{passage}\n- {answer}", ("entities",), shape=shapes.record),
        unlabelled=((),),
        length=1024,
        group="passage",
        unfold=unfold.RECORD,
    ),
    "squad": TaskInfo(
        "rajpurkar/squad",
        ("title", "context", "question"),
        "answers.text",
        (),
        open=Open(
            "generate",
            "Title: {title}\nContext: {context}\nQuestion: {question}\nAnswer: {answer}",
            ends="\n",
            metrics=("f1", "em"),
        ),
        length=1024,
        group="context",
    ),
    "drop": TaskInfo(
        "ucinlp/drop",
        ("passage", "question"),
        "answers_spans.spans",
        (),
        open=Open(
            "generate", "Passage: {passage}\nQuestion: {question}\nAnswer: {answer}", ends="\n", metrics=("f1", "em")
        ),
        length=1024,
        group="passage",
    ),
    "arc-easy": TaskInfo("allenai/ai2_arc:ARC-Easy", ("question",), "answerKey", (), ("test",), open=_ARC),
    "arc-challenge": TaskInfo("allenai/ai2_arc:ARC-Challenge", ("question",), "answerKey", (), ("test",), open=_ARC),
    "mmlu": TaskInfo(
        "cais/mmlu:all",
        ("subject", "question"),
        "answer",
        (),
        ("test",),
        open=Open(
            "choices",
            "The following are multiple choice questions (with answers) about {subject:words}.\n\n"
            "{question}\n{listed}\nAnswer: {answer}",
            ("choices",),
            shape=shapes.mmlu,
            objective="candidates",
        ),
        length=1024,
    ),
    "natural-instructions": TaskInfo(
        None,
        ("definition", "input"),
        "output",
        (),
        ("test",),
        open=replace(_INSTRUCTED, prompt=_NI),
        first=("definition",),
    ),
    "dolly": TaskInfo(
        "databricks/databricks-dolly-15k",
        ("instruction", "context"),
        "response",
        (),
        (),
        open=replace(_INSTRUCTED, shape=shapes.dolly),
        absent=("context",),
        held_out=("category", ("summarization",)),
    ),
    "alpaca": TaskInfo(
        "tatsu-lab/alpaca",
        ("instruction", "input"),
        "output",
        (),
        (),
        open=replace(_INSTRUCTED, shape=shapes.alpaca),
        absent=("input",),
    ),
}
CUSTOM = "custom"  # data of the user's own: columns, classes and prompt come from the recipe and the data
