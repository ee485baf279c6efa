"""The classifier that a checkpoint comes with: how many classes its head has, and what its configuration calls them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import ModelConfig
from .load import ENDINGS, load_config

_NUMBERED = re.compile(r"(?:LABEL_|label_)?([0-9]+)")  # LABEL_3 is transformers' name for a class without one


@dataclass(frozen=True)
class HeadLabels:
    """model: how messages call it.  count: of its outputs.  names: theirs, in order; empty: numbers at most.

    fault: why the names cannot be told from the configuration, or empty.
    """

    model: str
    count: int
    names: tuple[str, ...] = ()
    fault: str = ""


def head_labels(config: ModelConfig, kind: str) -> HeadLabels | None:
    """Of the head that the checkpoint has for `kind`; None: it has none, so that loading gives it a new one."""
    hf_config = load_config(config)
    classes = [
        ENDINGS.get(ending) for name in hf_config.architectures or () for ending in ENDINGS if name.endswith(ending)
    ]
    if not kind.endswith("classification") or (hf_config.architectures and kind not in classes):
        return None
    model, id2label, label2id = f"model.name={config.name!r}", hf_config.id2label or {}, hf_config.label2id or {}
    if fault := _fault(id2label, label2id):
        return HeadLabels(model, len(id2label), fault=fault)
    numbered = [_NUMBERED.fullmatch(str(name).strip()) for _, name in sorted(id2label.items())]
    names = [match[1] if match else str(id2label[i]) for i, match in enumerate(numbered)]
    generic = names == [str(i) for i in range(len(names))]
    return HeadLabels(model, len(names), () if generic else tuple(names))


def _fault(id2label: Mapping[int, Any], label2id: Mapping[str, Any]) -> str:
    """What is wrong with a configuration's names, or empty. Names of transformers' own in label2id say nothing."""
    if sorted(id2label) != list(range(len(id2label))):
        return f"id2label numbers its {len(id2label)} classes {', '.join(map(str, sorted(id2label)))}"
    times = Counter(id2label.values())
    if twins := [name for name, n in times.items() if n > 1]:
        return f"id2label has {twins[0]!r} {times[twins[0]]} times"
    called = {str(i): name for i, name in id2label.items()}
    for name, i in label2id.items():
        if called.get(str(i)) != name and (name in times or not _NUMBERED.fullmatch(str(name))):
            return f"label2id says that class {i} is {name!r}, id2label that it is {called.get(str(i))!r}"
    return ""
