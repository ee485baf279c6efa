"""CUDA graphs of the dual forward: where a model is so small that launching its kernels takes longer than running them.

Batches are alike if their shapes are (`key_of`). The first of its kind runs eagerly, which compiles kernels, fills
tables and settles scratch; the second runs eagerly and is captured; from the third on inputs and seed are copied to
where the graph reads them, and one launch replays it. Which batch comes when depends on the launch, so

Promise  replayed logits have the bits of eager ones. A new graph is replayed once and compared with the eager run of
         the same batch and seed; if a bit differs, batches of its kind stay eager. If capturing fails (a model that
         reads the device inside its forward, listed pieces), all do. `notes` says either, once.

What this rests on
- Weights, buffers and scratch stay where they are: moves, walks and loading write in place, and a graph keeps the
  scratch that it was captured with.
- A forward decides nothing by its inputs' values that its shapes do not say, since to read them fails a capture. The
  exception is transformers, which leaves out a mask of ones, and while capturing does not look: attention would run by
  another kernel. So a batch with a mask and no padding is left eager; to tell, the mask is read, where `real` does not.
- torch before 2.12 thinks of a capture that failed as still going on, which torch.cuda.empty_cache() then trips over;
  hpcfed does not call it.

Memory: graphs share one pool, as large as the activations of the largest. The clock sees no draws in a replay: they
count as forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import first_line
from ..model.head import Inputs

Sides = tuple[Tensor, Tensor]  # logits [R, ...] with w + mu z and with w - mu z
OneProbe = Callable[[Inputs, int | Tensor, float, Tensor | None], Sides]  # inputs, seed, mu, real
Key = tuple[tuple[tuple[str, torch.Size, torch.dtype], ...], float, int | None]

MOST = 32  # captures, also those that were of no use


def key_of(inputs: Inputs, mu: float, real: Tensor | None) -> Key | None:
    """What batches of one graph have in common; None for a batch that stays eager."""
    mask = inputs.get("attention_mask")
    if mask is not None and real is None and bool(mask.all()):
        return None
    shapes = tuple((name, x.shape, x.dtype) for name, x in inputs.items())
    return shapes, mu, None if real is None else len(real)


@dataclass(eq=False)
class Captured:
    """A graph, and the tensors that it reads and writes.  seed: int64 [1].  scratch: kept alive, not used."""

    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    seed: Tensor
    real: Tensor | None
    logits: Sides
    scratch: list[Tensor]

    def __call__(self, inputs: Inputs, seed: int, real: Tensor | None) -> Sides:
        """Both sides' logits, the caller's own; queued on the current stream."""
        for name, x in inputs.items():
            self.inputs[name].copy_(x)
        if self.real is not None and real is not None:
            self.real.copy_(real)
        self.seed.fill_(_signed(seed))
        self.graph.replay()
        plus, minus = self.logits
        return plus.clone(), minus.clone()  # the next replay of any graph of the pool writes here


class Graphs:
    """Runs batches by graph.  eager, dual: a probe; dual takes a seed on the device.  scratch: what dual writes to."""

    def __init__(self, eager: OneProbe, dual: OneProbe, scratch: Callable[[], list[Tensor]]) -> None:
        self._eager, self._dual, self._scratch = eager, dual, scratch
        self.notes: list[str] = []  # for the user, who takes them out
        self._off = False
        self._seen: set[Key] = set()
        self._captured: dict[Key, Captured | None] = {}  # None: stays eager
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    @property
    def count(self) -> int:
        """Graphs that are replayed."""
        return sum(captured is not None for captured in self._captured.values())

    def logits(self, inputs: Inputs, seed: int, mu: float, real: Tensor | None) -> Sides:
        """As Probe.logits, of inputs on a CUDA device; inside torch.inference_mode."""
        key = None if self._off else key_of(inputs, mu, real)
        captured = self._captured.get(key) if key else None
        if captured:
            return captured(inputs, seed, real)
        logits = self._eager(inputs, seed, mu, real)
        if key and key in self._seen and key not in self._captured and len(self._captured) < MOST:
            self._captured[key] = self._checked(inputs, seed, mu, real, logits)
        if key and not self._off:
            self._seen.add(key)
        return logits

    def _checked(self, inputs: Inputs, seed: int, mu: float, real: Tensor | None, expected: Sides) -> Captured | None:
        """A graph whose logits have the expected bits, or None and a note."""
        try:
            captured = self._capture(inputs, seed, mu, real)
            same = all(map(_same_bits, captured(inputs, seed, real), expected))
        except Exception as e:  # whatever a model raises that cannot be captured
            cause = e.__context__ or e  # the end of a broken capture raises, too
            why = f"{type(cause).__name__}: {first_line(cause)}"
            self.notes.append(f"mesh.graphs: no graphs from here on, for capturing one failed ({why})")
            self._off = True
            self._captured.clear()
            return None
        if not same and None not in self._captured.values():
            self.notes.append(
                "mesh.graphs: batches whose replayed logits differ in their last bits stay without graphs"
            )
        return captured if same else None

    def _capture(self, inputs: Inputs, seed: int, mu: float, real: Tensor | None) -> Captured:
        own = {name: x.clone() for name, x in inputs.items()}
        device = next(iter(own.values())).device
        at = torch.tensor([_signed(seed)], device=device)
        places = None if real is None else real.clone()
        if self._stream is None:
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        now = torch.cuda.current_stream(device)
        self._stream.wait_stream(now)
        try:
            with torch.cuda.stream(self._stream):  # torch.cuda.graph would not leave the stream of a broken capture
                self._dual(own, at, mu, places)  # libraries make a handle and a workspace a stream
                graph = torch.cuda.CUDAGraph()
                # thread_local: a collective's watchdog thread asks the device for events, which breaks a global capture
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    logits = self._dual(own, at, mu, places)
        finally:
            now.wait_stream(self._stream)
        return Captured(graph, own, at, places, logits, self._scratch())


def _signed(seed: int) -> int:
    """A seed's 64 bits as an int64."""
    return (seed + 2**63) % 2**64 - 2**63


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(*(x.contiguous().view(torch.uint8) for x in (a, b)))
