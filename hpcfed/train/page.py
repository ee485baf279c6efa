"""README.md of a model that leaves: what it was made of, how it is asked, and the command that makes it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..orbit import Header


def page(header: Header, rounds: int, fingerprint: str, command: str) -> str:
    """Markdown, with the metadata of a model card on top.  command: how the folder was made, without local paths."""
    task = header.task
    facts = {
        "base model": f"`{header.base_model}`, fingerprint `{header.base_fingerprint}`",
        "method": f"{header.algorithm}, {rounds:,} rounds, {header.dtype}",
        "fingerprint": f"`{fingerprint}`",
        "made with": f"`{command}`",
    }
    lines = ["---", "library_name: transformers", "tags: [hpcfed]", "---", "", f"# {header.base_model}, fine-tuned", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    return "\n".join([*lines, "", "## How it is asked", "", *_asked(header, task), ""])


def _asked(header: Header, task: Mapping[str, Any]) -> list[str]:
    lines = [f"- task: {task['name']}"] if "name" in task else []
    if "prompt" in task:
        said = "the next word after" if header.kind == "causal-lm" else "the word at {verbalizer} in"
        said = "an answer at the end of" if "form" in task else said
        chat = " inside the tokenizer's chat template" if task.get("chat") else ""
        lines += [f"- {said} this prompt{chat}, columns of the example filled in:", "", *_fenced(task["prompt"]), ""]
    if task.get("form") == "choices":
        lines += ["- it chooses the candidate whose tokens have the highest mean log-probability"]
    if task.get("form") == "generate" and task.get("ends"):
        lines += [f"- an answer ends with {'the eos token' if task['ends'] == 'eos' else repr(task['ends'])}"]
    if "verbalizers" in task:
        pairs = zip(header.labels, task.get("verbalizers", ()), strict=False)
        lines += ["| class | word |", "|---|---|", *(f"| {label} | {word} |" for label, word in pairs), ""]
    elif header.labels and "prompt" not in task:
        lines += [f"- classes: {', '.join(header.labels)} (`id2label` in `config.json`)"]
    if "text" in task:
        lines += [f"- text: {', '.join(task['text'])}"]
    if "bos" in task:
        lines += [f"- first token: {_first(task['bos'])}"]
    if "max_length" in task:
        lines += [f"- cut to {task['max_length']} tokens"]
    if "pad_token" in task:
        lines += [f"- padded with `{task['pad_token']}`"]
    return lines or ["The orbit does not say: it was made before orbits did."]


def _first(bos: bool | int) -> str:
    """As task.bos has it."""
    return f"number {bos}" if not isinstance(bos, bool) else "the tokenizer's bos" if bos else "none of its own"


def _fenced(text: str) -> list[str]:
    return ["```text", *text.splitlines(), "```"]
