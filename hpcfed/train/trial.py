"""What is found out by trial before a run: how a model must be asked to answer as it does by itself.

    check_tokens(name, model, tokenizer, task)      every token has a row of the embedding
    way = find_way(name, model, task, few, row)     the first of the ways below that is right

Formula  |got - own| <= APART |own - mean(own)| + ROUNDED |own|        norms over the scores [n, C] of a few examples
Legend   own: scores of the model's own logits, one sequence at a time, whole head, nothing padded, its own positions
         got: scores of the forward pass that a run uses, all sequences in one batch

Ways     with the rows of the head that the task scores, else with the whole head; padded as the task does it, else, of
         a causal model, on the right, where no token can see the padding
Promise  a model that answers otherwise in every way is refused, by name. The examples are those that every row has, so
         all rows decide the same
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, HpcfedError, first_line
from ..model.head import Forward, Inputs, make_forward, release_head, takes
from ..tasks import Batch, Example, Task
from ..transport.row import Row

#: How far logits may be from those they should equal, in units of their spread: sums are rounded in another order. What
#: is wrong is 0.1 or more apart, of sums over the wrong ranks 0.7.
APART = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
#: The same in units of their size: scores that hardly differ have little spread.
ROUNDED = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 2e-3}
WIDER = 3  # columns of padding where the examples have none
MANY = 4  # sequences an example, above which only two examples are tried


@dataclass(frozen=True, eq=False)
class Way:
    """How a model is asked.  task: with the form that fits.  forward: its logits.  name: equal on rows that agree."""

    task: Task
    forward: Forward
    name: str


def check_tokens(name: str, model: Any, tokenizer: Any, task: Task) -> None:
    """ConfigError if a token of the task, or the one to pad with, has no row in the model's embedding.

    name: model.name.
    """
    try:
        rows = int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError):  # an embedding of another kind: CANINE hashes characters
        return
    parts = [part for part in (task.train, *task.splits.values()) if len(part)]
    some = task.collate([parts[0][0]]).inputs.get("input_ids")  # with the tokens of the answers
    if some is None or not hasattr(tokenizer, "convert_ids_to_tokens"):
        return
    largest = max(*(part.largest("input_ids") for part in parts), int(some.max()), *(task.head_rows or ()))
    for what, token in (("", largest), ("pad ", tokenizer.pad_token_id)):
        if token >= rows:
            spelled = tokenizer.convert_ids_to_tokens(token)
            raise ConfigError(
                f"model.name={name!r}: {what}token {spelled!r} of its tokenizer is number {token}, and the model's "
                f"embedding has only rows 0 to {rows - 1}: make room with transformers' "
                "model.resize_token_embeddings(len(tokenizer)) and save_pretrained(), or take the tokenizer that the "
                f"model was made with{', or name another token by model.pad_token' * bool(what)}"
            )


@torch.no_grad()  # not inference_mode: what a model keeps of a pass may be differentiated through later
def find_way(name: str, model: nn.Module, task: Task, few: Sequence[Example], row: Row, pad: int = 0) -> Way:
    """How to ask `model` for the task's logits.  name: model.name.  few: examples.  pad: id of the token to pad with.

    Collective over the row.  Raises ConfigError, on every shard alike, if no way gives what the model itself does.
    """
    if task.collate(few[:1]).rows_per_example > MANY:
        few = [few[0], few[-1]]  # each takes a pass for every candidate
    task, objective = replace(task, objective=None), task.objective  # scores are compared, not what they are worth
    batch = _padded(task, few, pad)
    release_head(model)
    plain = make_forward(model, row)
    own, error = _tried(lambda: _scores(task, batch, _by_itself(plain, model, batch.inputs, task.head_rows)))
    if own is None:
        raise ConfigError(f"model.name={name!r}: {_family(model)} cannot be run on the task's examples ({error})")
    if not bool(own.isfinite().all()):  # told with its cures by the probe, which cannot be bound either
        return _way(model, replace(task, objective=objective), row, True)
    said = ""
    for form in (task.form, task.form.right):
        for restrict in (True, False)[: 1 + bool(task.head_rows)]:
            if form is None:
                continue
            judge = task.judge.right if task.judge and form is not task.form else task.judge
            way = _way(model, replace(task, form=form, judge=judge), row, restrict)
            asked = _padded(way.task, few, pad)
            got, error = _tried(lambda way=way, asked=asked: _scores(way.task, asked, way.forward(asked.inputs)))  # type: ignore[misc]
            right = got is not None and _agree(got, own, model)
            if not row.any(not right):
                return replace(way, task=replace(way.task, objective=objective))
            said = error or _apart(got, own)
    raise ConfigError(f"model.name={name!r}: {_family(model)} {_why(plain, model, batch, task, own)} ({said})")


def _family(model: nn.Module) -> str:
    return f"a {getattr(getattr(model, 'config', None), 'model_type', type(model).__name__)} model"


def _way(model: nn.Module, task: Task, row: Row, restrict: bool) -> Way:
    forward = make_forward(model, row, task.keep_last, task.head_rows, restrict)
    name = "the rows of the head that are read" if restrict else "the whole head"
    return Way(task, forward, f"{name}, padded {'on the left' if task.form.right else 'on the right'}")


def _tried(work: Callable[[], Tensor]) -> tuple[Tensor | None, str]:
    """What comes of it, or the error that a model raises which wants other inputs."""
    try:
        return work(), ""
    except (torch.OutOfMemoryError, HpcfedError):
        raise
    except Exception as e:  # anything: it is the model's own code
        return None, f"{type(e).__name__}: {first_line(e)}"


def _padded(task: Task, few: Sequence[Example], pad: int) -> Batch:
    """The examples as a batch in which something is padded, if it is one of texts."""
    batch = task.collate(few)
    mask = batch.inputs.get("attention_mask")
    known = {"input_ids", "attention_mask", "position_ids", "token_type_ids", "answer_mask"}
    if mask is None or not bool(mask.all()) or batch.inputs.keys() - known:
        return batch
    side = (WIDER, 0) if task.form.right else (0, WIDER)
    wider = {
        k: v if k == "answer_mask" else F.pad(v, side, value=pad * (k == "input_ids")) for k, v in batch.inputs.items()
    }
    return replace(batch, inputs=wider, real=None)


def _alone(model: nn.Module, inputs: Inputs, i: int) -> Inputs:
    """Row i of a batch without its padding, all of its logits, and without positions, which the model counts itself."""
    mask = inputs.get("attention_mask")
    row = {k: v[i : i + 1] for k, v in inputs.items() if k not in ("position_ids", "answer_mask")}
    if mask is None or mask.dim() != 2:
        return row
    if not takes(model, "attention_mask"):
        del row["attention_mask"]
    return {k: v[:, mask[i].bool()] if v.shape[:2] == (1, mask.shape[1]) else v for k, v in row.items()}


def _by_itself(plain: Forward, model: nn.Module, inputs: Inputs, columns: Sequence[int] | None) -> Tensor:
    """Logits of every row alone, where the row's tokens are in the batch; 0 where padding is."""
    rows = next(iter(inputs.values())).shape[0]
    mask, out = inputs.get("attention_mask"), []
    for i in range(rows):
        logits = plain(_alone(model, inputs, i))
        logits = logits if columns is None else logits[..., list(columns)]
        if mask is not None and mask.dim() == 2 and logits.dim() > 2:
            whole = logits.new_zeros(1, mask.shape[1], *logits.shape[2:])
            whole[:, mask[i].bool()] = logits
            logits = whole
        out.append(logits)
    return torch.cat(out)


def _scores(task: Task, batch: Batch, logits: Tensor) -> Tensor:
    return task.form.scores(logits, batch).double()


def _apart(got: Tensor | None, own: Tensor) -> str:
    if got is None or got.shape != own.shape:
        return "its logits are not those of the words that are asked for"
    return f"its scores are {float((got - own).norm() / (own - own.mean()).norm()):.2g} x their spread from its own"


def _agree(got: Tensor, own: Tensor, model: nn.Module) -> bool:
    """Equal up to the rounding of sums in another order."""
    p = next(model.parameters())
    # Convolutions on a GPU round their factors to float16's ten bits.
    short = p.is_cuda and p.dtype == torch.float32 and torch.backends.cudnn.allow_tf32 and not _reads_tokens(model)
    dtype = torch.float16 if short else p.dtype
    most = APART[dtype] * (own - own.mean()).norm() + ROUNDED[dtype] * own.norm()
    return got.shape == own.shape and bool((got - own).norm() <= most)


def _reads_tokens(model: nn.Module) -> bool:
    return takes(model, "input_ids")


def _why(plain: Forward, model: nn.Module, batch: Batch, task: Task, own: Tensor) -> str:
    """What is the matter with a model that no way fits."""
    again = _scores(task, batch, _by_itself(plain, model, batch.inputs, task.head_rows))
    if not _agree(again, own, model):
        return "gives other logits for the same input every time, so no loss of it can be compared; use another model"
    one = _alone(model, batch.inputs, 0)
    twice = {k: torch.cat([v, v]) for k, v in one.items()}
    both, _ = _tried(lambda: plain(twice).double())
    if both is not None and both.shape[0] == 2 and _agree(both[:1], plain(one).double(), model) and "input_ids" in one:
        return "does not leave out padding: a loss would depend on the examples beside it; use another model"
    return "mixes the examples of a batch: a loss would depend on those beside it; use another model"
