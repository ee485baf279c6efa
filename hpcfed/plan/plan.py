"""What a run will take, before it is queued: memory of a rank, bytes, time, and which meshes are possible.

Everything follows from the recipe and the model's config.json: the model is built on torch's meta device, a round is
run there on shapes, and its bytes and FLOPs are counted (footprint.py says what is).

Formula  seconds = FLOPs / (sustained FLOP/s) + elements of z drawn / (drawn a second), of the row with most clients;
                   of s shards a rank does 1/s of both
Promise  memory within 15 % of what rounds of small and middle-sized models take on a CPU: tests/unit/plan/test_plan.py
         It is that of tensors: the interpreter with torch (0.5 GB) or a CUDA context, and what the allocator keeps of
         freed memory, come on top
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..algorithms import make_algorithm
from ..algorithms.header import make_header
from ..clients import CentralPool, Pool
from ..config import Recipe, load_method
from ..errors import ConfigError, first_line
from ..model import Outline, check_shards, checkpoint_names, model_kind, outline
from ..model.head import computes, make_forward
from ..orbit import Header, sealed_bytes
from ..privacy import make_privacy
from ..tasks import TaskInfo, kind_of, task_info, told, usual_length
from ..tasks.base import LANGUAGE
from ..tasks.evaluate import TOKENS
from ..transport.mesh import MeshShape
from ..transport.row import Row
from ..transport.wire import encode_bits, encode_sum
from ..weights import Weights
from .footprint import Memory, footprint, split_bytes
from .meter import Meter

CLASSES = 2  # of a custom task, whose data are not read
CHOICES, ANSWER = 4, 32  # candidates of an example in one column, and tokens of an answer: not read either
USABLE = 0.9  # of a GPU's memory: the rest is for its context and for what the allocator cannot hand out
CPU_TFLOPS, CPU_DRAWS = 0.1, 2.0  # a thread: OPT-125M's forward pass, and benchmarks/noise.py (G/s)
GPU_DRAWS = 300.0  # G/s


@dataclass(frozen=True)
class Speed:
    """flops: FLOP/s that a rank sustains.  draws: elements of z it draws a second.  what: where the two come from."""

    flops: float
    draws: float
    what: str


@dataclass(frozen=True)
class Work:
    """Arithmetic of a round.  steps: passes over each example, of both sides.  flops: of a pass, an example.

    draws: elements of z drawn in a pass of `examples` examples; moves: in the round's update.
    """

    steps: int
    examples: int
    flops: float
    draws: int
    moves: int


@dataclass(frozen=True)
class Shape:
    """A mesh.  memory: of its ranks.  rounds: a second, estimated.  problem: why it is impossible, or empty."""

    rows: int
    shards: int
    memory: int
    rounds: float
    problem: str


@dataclass(frozen=True, eq=False)
class Plan:
    """What a round takes on one rank with the whole model, and how that divides.

    parameters, trained: elements.  split: bytes of the weights that shards divide.  config: transformers' own.
    tokens: of an example.  up, down: bits that the method needs a client.  orbit: bytes, None for dense methods.
    """

    recipe: Recipe
    pool: Pool
    memory: Memory
    work: Work
    parameters: int
    trained: int
    split: int
    config: Any
    tokens: int
    up: int
    down: int
    orbit: int | None
    notes: list[str]

    def payload(self, rows: int) -> int:
        """Bytes that a row hands to collectives in a round."""
        if rows == 1:
            return 0
        a, most = self.recipe.algorithm, self._most_clients(rows)
        if a.traits.dense:
            return 8 * (self.trained + 3)
        if not a.traits.votes:
            return 4 * most * self.work.steps + 1
        nobody = np.zeros((0, a.directions), np.int8)
        if a.ballot == "bits":
            return encode_bits(nobody, False, most).nbytes
        sums = encode_sum(nobody, False, max(self.pool.cohort_size, rows))
        privacy = make_privacy(self.recipe.privacy, a.directions, self.pool.clients, self.pool.cohort)
        return sums.nbytes + privacy.extra_entries(a.directions) * sums.itemsize

    def seconds(self, rows: int, shards: int, speed: Speed) -> float:
        """A round of so many rows: the arithmetic and the draws of the row with most clients, nothing else."""
        w, batch = self.work, self.recipe.clients.batch
        if isinstance(self.pool, CentralPool):  # its clients share one batch
            batch = -(-batch // self.pool.clients)
        examples = self._most_clients(rows) * batch
        draws = -(-examples // w.examples) * w.steps * w.draws + w.moves
        return (w.flops * examples * w.steps / speed.flops + draws / speed.draws) / shards

    def _most_clients(self, rows: int) -> int:
        """Clients of a round on the row that hosts most of them."""
        return max(MeshShape(rows).hosted(self.pool.groups(0), self.pool.n_groups))

    def rank_memory(self, shards: int, gpu: bool) -> int:
        """Bytes at the peak of the run on a rank with one of so many shards; gpu: without what is in main memory."""
        m = self.memory.shard(self.split, shards)
        return m.total - gpu * m.host

    def fits(self, shards: int, memory: int | None) -> bool:
        """Whether a rank with one of so many shards fits a device of so many bytes; None: no limit."""
        return memory is None or self.rank_memory(shards, True) <= USABLE * memory

    def shards_needed(self, memory: int) -> int | None:
        """The fewest shards that fit a device of so many bytes; None: no possible number does."""
        n = 1
        while not self.fits(n, memory):
            n += 1
            if self._unfit(n):
                return None
        return n

    def shapes(self, nodes: int, per_node: int, memory: int | None, speed: Speed) -> list[Shape]:
        """Every mesh of nodes x per_node ranks; memory: bytes of a rank's device, None: not limited."""
        ranks = nodes * per_node
        return [
            Shape(
                ranks // n,
                n,
                self.rank_memory(n, memory is not None),
                1 / self.seconds(ranks // n, n, speed),
                self._problem(ranks // n, n, per_node, memory),
            )
            for n in range(1, ranks + 1)
            if ranks % n == 0
        ]

    def _problem(self, rows: int, shards: int, per_node: int, memory: int | None) -> str:
        if not self.fits(shards, memory):
            return "does not fit"
        if rows > self.pool.n_groups:
            return f"more rows than groups of clients ({self.pool.n_groups})"
        if unfit := self._unfit(shards):
            return unfit
        return "a row would straddle nodes unevenly" if per_node % shards and shards % per_node else ""

    def _unfit(self, shards: int) -> str:
        """Why the model or the method cannot have so many shards, or empty."""
        if shards > 1 and self.recipe.algorithm.traits.dense:
            return f"{self.recipe.algorithm.name} needs a row of one rank"
        try:
            check_shards(self.config, shards)
        except ConfigError as e:
            return str(e).removeprefix(f"mesh.shards={shards}: ")
        return ""


def speed_of(recipe: Recipe, gpu: bool, tflops: float | None = None, draws: float | None = None) -> Speed:
    """What a rank is taken to sustain.  tflops: TFLOP/s.  draws: G/s."""
    for option, value in (("--tflops", tflops), ("--draws", draws)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{option} {value:g}: must be above 0 and finite")
    threads = recipe.mesh.threads or torch.get_num_threads()
    wide = recipe.model.dtype == "float32"
    usual = (60.0 if wide else 400.0) if gpu else CPU_TFLOPS * threads
    where = "half of what an H100's data sheet says" if gpu else f"{threads} CPU threads as measured in benchmarks/"
    drawn = GPU_DRAWS if gpu else CPU_DRAWS * threads
    flops, many = tflops or usual, draws or drawn
    what = f"{flops:g} TFLOP/s ({'as you say' if tflops else where}), {many:g} G/s drawn "
    what += "(as you say)" if draws else "(a guess)" if gpu else "(measured)"
    return Speed(flops * 1e12, many * 1e9, what)


def parse_bytes(option: str, text: str) -> int:
    """80GB, 40 GiB, 512M as bytes; ConfigError that names the option."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)(i?)B?\s*", text)
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"{option} {text!r}: write a number and a unit, e.g. 80GB or 40GiB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " kMGT".index(match[2] or " "))


def check_shapes(recipe: Recipe, shapes: Sequence[Shape], limit: int | None) -> None:
    """ConfigError if no mesh is possible, or mesh.shards (where it is not 1) asks for an impossible one."""
    good = [f"{shape.shards} (rows: {shape.rows})" for shape in shapes if not shape.problem]
    ranks, asked = shapes[0].rows * shapes[0].shards, recipe.mesh.shards
    if not good:
        least = min(shape.memory for shape in shapes)
        cures = {shape.problem for shape in shapes}
        need = f"; a rank needs {least / 1e9:,.3g} GB at least" if limit is not None and "does not fit" in cures else ""
        raise ConfigError(f"no mesh of {ranks} ranks is possible ({'; '.join(sorted(cures))}){need}")
    shape = next((shape for shape in shapes if shape.shards == asked), None)
    if asked != 1 and (shape is None or shape.problem):
        why = shape.problem if shape else f"does not divide the {ranks} ranks"
        raise ConfigError(f"mesh.shards={asked}: {why}; possible are {', '.join(good)}")


def make_plan(recipe: Recipe, tokens: int | None = None, device: str = "cpu") -> Plan:
    """The plan of a recipe for a "cpu" or "cuda".  tokens: of an example; default: as many as the task lets through.

    Raises ConfigError where the model's configuration cannot be had, or the task and the model do not go together.
    """
    info = task_info(recipe.task)
    kind = kind_of(recipe.task, model_kind(recipe.model))
    labels = [str(name) for name in recipe.task.verbalizers or info.labels or range(0 if info.open else CLASSES)]
    shadow = outline(recipe.model, kind, labels)
    weights = Weights(shadow.model, recipe.algorithm.train_only, names=checkpoint_names(shadow.model))
    length = _length(recipe, kind, shadow, tokens)
    pool = _pool(recipe)
    split = split_bytes(shadow.model)
    # Which logits are computed: a prompted task scores one word a class.
    heads = list(range(len(labels))) if kind in LANGUAGE and not info.open else None
    last = ANSWER + 1 if info.open else int(kind == "causal-lm")
    trained, judged = _sequences(info)
    forward = make_forward(shadow.model, Row(), last, heads)
    header = make_header(recipe, weights, kind, labels, pool, "0" * 32, told(recipe.task, kind, length))
    examples = _examples(recipe, header, pool, length)
    inputs = _inputs(shadow, examples * trained, length)
    evaluated = _inputs(shadow, min(recipe.eval_batch * judged, max(judged, TOKENS // length)), length)
    with Meter([]).measuring():  # some models ask for values, which it answers
        whole = bool(heads) and not computes(forward, inputs, len(heads or ()))
    if whole:
        forward = make_forward(shadow.model, Row(), last, heads, restrict=False)
    try:
        memory, flops, draws = footprint(recipe.algorithm, shadow.model, weights, forward, inputs, evaluated, device)
    except RuntimeError as e:  # it asks for values, and there are only shapes
        what = f"model.name={recipe.model.name!r}: cannot be run on shapes alone ({first_line(e)})"
        raise ConfigError(what) from None
    up, down, steps, moves = _traffic(recipe, header, weights)
    return Plan(
        recipe,
        pool,
        memory,
        Work(steps, examples, flops / examples, draws, moves),
        parameters=sum(p.numel() for p in shadow.model.parameters()),
        trained=weights.numel,
        split=split,
        config=shadow.config,
        tokens=length,
        up=up,
        down=down,
        orbit=None if recipe.algorithm.traits.dense else sealed_bytes(header, recipe.rounds),
        notes=_notes(recipe, kind, info.labels or recipe.task.verbalizers, tokens, length),
    )


def _sequences(info: TaskInfo) -> tuple[int, int]:
    """Sequences of an example in training and in an evaluation."""
    if not info.open or info.open.form != "choices":
        return 1, 1
    many = len(info.open.choices) if len(info.open.choices) > 1 else CHOICES
    return (many if info.open.objective == "candidates" else 1), many


def _length(recipe: Recipe, kind: str, shadow: Outline, tokens: int | None) -> int:
    if shadow.image is not None:
        return 1
    length = tokens or recipe.task.max_length or usual_length(task_info(recipe.task), kind)
    if tokens and shadow.positions and tokens > shadow.positions:
        raise ConfigError(f"--tokens {tokens}: the model has only {shadow.positions} positions")
    return min(length, shadow.positions or length)


def _pool(recipe: Recipe) -> Pool:
    """As many clients as in the run, with an example each."""
    c = recipe.clients
    if recipe.algorithm.local_steps == "epoch":
        raise ConfigError('algorithm.local_steps="epoch": how many that is depends on the data; plan needs a number')
    if recipe.algorithm.traits.central:
        return CentralPool(np.arange(c.count * c.batch), c.count, c.group, c.batch, recipe.seed)
    return Pool(np.arange(c.count)[:, None], c.cohort, c.group, c.batch, recipe.seed)  # type: ignore[arg-type]


def _examples(recipe: Recipe, header: Header, pool: Pool, length: int) -> int:
    """Examples in the largest forward pass, if clients hold that many."""
    c, traits = recipe.clients, recipe.algorithm.traits
    if traits.central:
        n = min(c.batch, min(c.group, pool.clients) * -(-c.batch // pool.clients))
    elif traits.walks or traits.dense or load_method(recipe.algorithm.name).apart(header):
        n = c.batch
    else:
        n = c.batch * min(c.group, pool.cohort_size)
    limits = [n, c.max_batch_examples or n, max(1, c.max_batch_tokens // length) if c.max_batch_tokens else n]
    return min(limits)


def _inputs(shadow: Outline, rows: int, length: int) -> dict[str, Tensor]:
    if shadow.image is not None:
        return {"pixel_values": torch.empty(rows, *shadow.image, device="meta")}
    names = ["input_ids", "attention_mask", *(["position_ids"] if shadow.position_ids else [])]
    return {name: torch.empty(rows, length, dtype=torch.int64, device="meta") for name in names}


def _traffic(recipe: Recipe, header: Header, weights: Weights) -> tuple[int, int, int, int]:
    """(bits up, bits down, passes over a client's batch, elements drawn by the update) a round."""
    method = load_method(recipe.algorithm.name)
    if recipe.algorithm.traits.dense:
        return 32 * weights.numel, 32 * weights.numel, method.passes(recipe.algorithm), 0
    bound = make_algorithm(header, method)
    return bound.uplink_bits, bound.downlink_bits, method.slopes(header), method.moves(header) * weights.numel


def _notes(recipe: Recipe, kind: str, known: Any, tokens: int | None, length: int) -> list[str]:
    notes = []
    if kind != "image-classification" and tokens is None:
        notes.append(f"examples are taken to be {length} tokens long, the most that the task lets through (--tokens)")
    if (own := task_info(recipe.task).open) is not None:
        many = f", {_sequences(task_info(recipe.task))[1]} candidates an example" if own.form == "choices" else ""
        notes.append(f"answers are taken to be {ANSWER} tokens long{many}; what decoding takes is not counted")
    elif kind in LANGUAGE:
        notes.append("every class is taken to be one word of one token, so that only their logits are computed")
    if not known and own is None:
        notes.append(f"the task is taken to have {CLASSES} classes")
    return notes + [note for note in [load_method(recipe.algorithm.name).note] if note]
