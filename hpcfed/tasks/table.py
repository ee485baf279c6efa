"""The tasks known by name: where their data lie, what the columns and classes are called, and how they are asked.

Prompts are templates: {column} is a text column of the example, {column:form} the same after one of prompts.FORMS, and
{verbalizer} the place of the answer (for a causal language model always the end). Causal prompts and verbalisers of
sst2, rte, cb and boolq are MeZO's (Malladi et al. 2023), masked ones those of LM-BFF (Gao et al. 2021), which MeZO's
RoBERTa experiments use; where neither has one, the nearest relative's is taken.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """A prompt and, in the order of the classes, the verbalisers that answer it."""

    prompt: str
    verbalizers: tuple[str, ...]


@dataclass(frozen=True)
class TaskInfo:
    """data: hub name, "NAME:CONFIG" where the data set has several.  text: the text columns (empty: images).

    unlabelled: labels that mean "nobody knows"; such rows are left out.
    """

    data: str | None
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    eval_splits: tuple[str, ...] = ("validation",)
    causal: Asked | None = None
    masked: Asked | None = None
    unlabelled: tuple[int | str, ...] = ()
    revision: str | None = None


_REVIEW = "{%s} It was {verbalizer}"
_INFER = 'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n{verbalizer}'
_PAIR = "{%s:bare}? {verbalizer}, {%s:lower}"
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
}
CUSTOM = "custom"  # data of the user's own: columns, classes and prompt come from the recipe and the data
