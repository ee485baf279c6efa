"""One copy of a model over the ranks of a row: DeepSpeed's automatic tensor parallelism (AutoTP), without its kernels.

    model, slices = load_shard(config, kind, labels, row)    this shard's part, and which part that is
    save_shards(model, slices, row, save)                    the whole model, to something that writes it

Layer     LinearLayer        rows of the weight and of the bias; its output is this shard's part of the features
          LinearAllreduce    columns of the weight; its output is summed over the row, then the whole bias is added
          all else (embeddings, norms, heads) is whole on every rank
Promise   names and addresses are those of the unsharded model, so directions, moves and fingerprints are too;
          tests/ranks/test_shards.py

The head stays whole. DeepSpeed would clone it, so that a tied one came apart from its embedding, and sum logits of the
whole vocabulary over the row; here a task reads few of them (head.py).
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ConfigError
from ..noise.layout import Slice
from ..transport.row import Row
from .load import checked_config, load_model
from .slices import Unreadable, empty_model, fill

T = TypeVar("T")

#: Families that AutoTP gets wrong, by model_type; seen with deepspeed 0.19.8.
REFUSED = {
    "gpt2": "its Conv1D layers store weights transposed",
    "phi3": "its fused query, key and value weight is cut at the wrong places",
    "persimmon": "its fused query, key and value weight is cut at the wrong places",
    "olmo2": "its norms of queries and keys go over all heads",
    "mpnet": "its position bias is one of all heads",
    "modernbert": "it spreads some of the layers that belong together, and not the others",
    "vit": "it spreads some of the layers that belong together, and not the others",
}
HEADS = ("lm_head", "embed_out")  # what DeepSpeed takes for a head, by name
META = "ds_autotp_universal_checkpoint_meta"  # where DeepSpeed notes what it did to a parameter


def check_shards(hf_config: Any, shards: int) -> None:
    """Raise ConfigError unless a model of this transformers config can be spread over `shards` ranks."""
    if shards == 1:
        return
    if hf_config.model_type in REFUSED:
        raise ConfigError(
            f"mesh.shards={shards}: DeepSpeed's tensor parallelism gets {hf_config.model_type} models wrong "
            f"({REFUSED[hf_config.model_type]}); use mesh.shards=1 or another model (OPT, Llama and RoBERTa are tested)"
        )
    groups = getattr(hf_config, "num_key_value_heads", None) or getattr(hf_config, "num_kv_heads", None)
    if getattr(hf_config, "multi_query", False) and not getattr(hf_config, "new_decoder_architecture", False):
        groups = 1  # Falcon
    heads = groups or getattr(hf_config, "num_attention_heads", None)
    if not isinstance(heads, int):
        raise ConfigError(
            f"mesh.shards={shards}: a {hf_config.model_type} model has no attention heads to spread; use mesh.shards=1"
        )
    if heads < shards:
        kind, right = "key-value" if groups else "attention", "1" if heads == 1 else f"1 to {heads}"
        raise ConfigError(
            f"mesh.shards={shards}: the model has {heads} {kind} head{'s' * (heads > 1)} and a head is never split; "
            f"use {right}"
        )


def load_shard(config: ModelConfig, kind: str, labels: Sequence[str], row: Row) -> tuple[nn.Module, dict[str, Slice]]:
    """As load_model, but only this shard's part of the model; and what part that is, by parameter name.

    Collective over the row.  Raises ConfigError, on every shard alike.
    """
    if row.shards == 1:
        return load_model(config, kind, labels).to(row.device), {}

    def begin() -> nn.Module:
        check_shards(checked_config(config, kind), row.shards)
        _load_deepspeed(row.device)
        return empty_model(config, kind, labels)

    model = row.together(begin)
    slices = spread_model(model, row)
    if row.any(not _filled(model, slices, config, kind)):
        del model
        model = row.together(lambda: load_model(config, kind, labels))
        slices = spread_model(model, row)
    return model.to(row.device), slices


def _filled(model: nn.Module, slices: Mapping[str, Slice], config: ModelConfig, kind: str) -> bool:
    """Read this shard's part; False if the checkpoint's names are not the model's, so that it must be loaded whole."""
    try:
        fill(model, slices, config, kind)
    except Unreadable:
        return False
    return True


def spread_model(model: Any, row: Row) -> dict[str, Slice]:
    """Collective over the row: keep of `model` this shard's part, in place; what part that is, by parameter name.

    Names of tied parameters stay as they were.  Raises ConfigError for a model that DeepSpeed cannot spread.
    """
    kind, dtype = model.config.model_type, next(model.parameters()).dtype
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    deepspeed = _load_deepspeed(row.device)
    with _undisturbed(row.device), _kept(model), _without_heads(model):
        # A class variable of DeepSpeed's: a group of an earlier world would be taken for this one's.
        deepspeed.inference.engine.InferenceEngine.inference_mp_group = None
        try:
            # Grain 1: with DeepSpeed's 64 a small layer would go whole to the first shard.
            deepspeed.init_inference(
                model,
                tensor_parallel={"tp_size": row.shards, "tp_grain_size": 1},
                dtype=dtype,
                replace_with_kernel_inject=False,
            )
        except (AssertionError, ValueError, NotImplementedError, AttributeError, TypeError, KeyError) as e:
            raise ConfigError(
                f"mesh.shards={row.shards}: DeepSpeed cannot spread a {kind} model: {type(e).__name__}: {e}"
            ) from None
    slices = {}
    for name, p in model.named_parameters():
        part = _slice(name, p, row.shard)
        if part is not None and len(part.index) < part.shape[part.dim]:
            slices[name] = part
        whole = part.shape if part else tuple(p.shape)
        if shapes.get(name) != whole:
            raise ConfigError(
                f"mesh.shards={row.shards}: DeepSpeed made {name} of a {kind} model a parameter of shape {whole}, "
                f"which in the whole model is {shapes.get(name, 'another name')}; this family needs mesh.shards=1"
            )
    if not slices:
        raise ConfigError(f"mesh.shards={row.shards}: DeepSpeed found nothing to spread in a {kind} model")
    _mark(model)
    return slices


def _load_deepspeed(device: str) -> Any:
    os.environ["DS_ACCELERATOR"] = device  # else it takes a GPU wherever there is one
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import deepspeed
            import deepspeed.inference.engine
    except ImportError as e:
        raise ConfigError(f"mesh.shards needs DeepSpeed, which does not load ({e}); pip install deepspeed") from None
    # Its shared-memory all-reduce compiles for minutes, and over the wrong group it is wrong in silence.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


@contextlib.contextmanager
def _undisturbed(device: str) -> Iterator[None]:
    """Inside, DeepSpeed may print, broadcast rank 0's random state over that of all ranks, and look for LOCAL_RANK."""
    cpu = torch.get_rng_state()
    gpu = torch.cuda.get_rng_state() if device == "cuda" else None
    before = os.environ.get("LOCAL_RANK")
    if device == "cuda":
        os.environ["LOCAL_RANK"] = str(torch.cuda.current_device())
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu)
        if before is None:
            os.environ.pop("LOCAL_RANK", None)
        else:
            os.environ["LOCAL_RANK"] = before


@contextlib.contextmanager
def _without_heads(model: nn.Module) -> Iterator[None]:
    """Inside, the model's head is something that DeepSpeed does not touch."""
    heads = {name: head for name in HEADS if (head := model._modules.get(name)) is not None}
    try:
        for name in heads:
            model._modules[name] = nn.Identity()
        yield
    finally:
        model._modules.update(heads)


@contextlib.contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Inside, DeepSpeed may cast buffers (rotary frequencies to 16 bits), and a model on meta may get memory.

    That gives every parameter a new object, without DeepSpeed's notes and not tied, and every buffer rubbish.
    """
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    first: dict[int, str] = {}
    tied = [
        (name, first[id(p)])
        for name, p in model.named_parameters(remove_duplicate=False)
        if first.setdefault(id(p), name) != name
    ]
    yield
    for name, p in list(model.named_parameters()):
        if p.is_meta and name not in dict(tied):  # an untied head, which DeepSpeed has not seen
            _set(model, name, nn.Parameter(torch.empty_like(p, device="cpu"), requires_grad=False))
    for name, original in tied:
        _set(model, name, model.get_parameter(original))
    for name, b in buffers.items():
        holder, _, attribute = name.rpartition(".")
        model.get_submodule(holder)._buffers[attribute] = b
    for module in model.modules():
        mark: Any = getattr(module, "_mark_uc_metadata", None)
        if mark:
            mark()


def _set(model: nn.Module, name: str, p: Tensor) -> None:
    holder, _, attribute = name.rpartition(".")
    model.get_submodule(holder)._parameters[attribute] = p  # type: ignore[assignment]


def _slice(name: str, p: Tensor, shard: int) -> Slice | None:
    """What DeepSpeed's note on a parameter says; None if it left the parameter whole."""
    note = getattr(p, META, None)
    if note is None or note["replicated"] or note["partition_dim"] is None:
        return None
    dim, shape = note["partition_dim"], tuple(int(n) for n in note["original_shape"] or note["logical_shape"])
    if note["partition_sizes"]:
        low = sum(note["partition_sizes"][:shard])
        index = np.arange(low, low + note["partition_sizes"][shard])
    elif note["sub_param_shard_widths"]:  # a fused weight: a run of each of its parts
        firsts = np.cumsum([0, *(sum(widths) for widths in note["sub_param_shard_widths"])])
        lows = [first + sum(w[:shard]) for first, w in zip(firsts, note["sub_param_shard_widths"], strict=False)]
        index = np.concatenate(
            [np.arange(low, low + w[shard]) for low, w in zip(lows, note["sub_param_shard_widths"], strict=True)]
        )
    else:
        raise ConfigError(f"mesh.shards: DeepSpeed does not say which part of {name} it kept; use mesh.shards=1")
    return Slice(shape, dim, index.astype(np.int64))


def _mark(model: nn.Module) -> None:
    """Tell the probe how to run DeepSpeed's layers a block of weights at a time: what to do with their product."""
    from deepspeed import comm
    from deepspeed.module_inject import layers

    def sum_over(group: Any) -> Callable[[Tensor], Any]:
        return lambda product: comm.inference_all_reduce(product, group=group)

    for layer in model.modules():
        if type(layer) is layers.LinearAllreduce:
            layer.__dict__["in_row"] = sum_over(layer.mp_group)
        elif type(layer) is layers.LinearLayer and not layer.gather_output:
            layer.__dict__["in_row"] = None


@contextlib.contextmanager
def without_sums() -> Iterator[None]:
    """Inside, each shard computes by itself: what does not fit raises there, and wrong values have the right shapes."""
    from deepspeed import comm

    with mock.patch.object(comm, "inference_all_reduce", lambda *_args, **_options: None):
        yield


def save_shards(model: Any, slices: Mapping[str, Slice], row: Row, save: Callable[[nn.Module], T]) -> T | None:
    """Collective over the row: shard 0 saves the whole model, and holds it meanwhile; what `save` gives, there."""
    if not slices:
        return save(model)
    tensors = model.state_dict()
    for name, part in slices.items():
        raw = tensors[name].cpu().contiguous().view(torch.uint8).numpy().tobytes()
        parts, indices = row.gather(raw), row.gather(part.index.tobytes())
        if row.shard == 0:
            tensors[name] = _joined(part, tensors[name].dtype, parts, indices)

    def write() -> T | None:
        if row.shard == 0:
            with torch.device("meta"):
                whole = type(model)(model.config)
            whole.load_state_dict(tensors, assign=True)
            whole.tie_weights()
            return save(whole)
        return None

    return row.together(write)


def _joined(where: Slice, dtype: torch.dtype, parts: Sequence[bytes], indices: Sequence[bytes]) -> Tensor:
    """The full parameter from the bytes of all shards."""
    full = torch.empty(where.shape, dtype=dtype)
    for part, raw in zip(parts, indices, strict=True):
        index = torch.from_numpy(np.frombuffer(raw, np.int64).copy())
        shape = [*where.shape[: where.dim], len(index), *where.shape[where.dim + 1 :]]
        local = torch.frombuffer(bytearray(part), dtype=dtype).view(shape) if part else full.new_empty(shape)
        full.index_copy_(where.dim, index, local)
    return full
