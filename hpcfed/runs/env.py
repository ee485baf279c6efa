"""What a run was started with, as env.json has it, and what of it is another when the run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERSIONS = ("hpcfed", "torch", "transformers", "numpy")
OTHERS = {
    "cpu": "the processor",
    "cpu_capability": "what torch uses of the processor",
    "gpu": "the GPU",
    "torch_threads": "the number of threads",
}


def env_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A note for each thing that may change the last bits of a result; what an older env.json does not say is left out.

    old, new: contents of env.json.
    """
    pairs = [(name, old.get("versions"), new.get("versions"), name) for name in VERSIONS]
    pairs += [(what, old, new, key) for key, what in OTHERS.items()]
    return [
        f"{what} was {before[key]} and is {after[key]}: from here on the last bits of a result may differ from those "
        "of an undisturbed run"
        for what, before, after, key in pairs
        if isinstance(before, Mapping) and isinstance(after, Mapping) and key in before and key in after
        if before[key] != after[key]
    ]
