"""An orbit and its base model become the fine-tuned model, through the same Mover that trained it.

Promise  the replayed weights have the fingerprint the run ended with, in any dtype the run used
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from ..algorithms import Algorithm, Method, make_algorithm
from ..config import ModelConfig, load_method
from ..errors import ConfigError, HpcfedError, OrbitError
from ..model import save_model, save_shards
from ..orbit import Header, Orbit, load_any, public_name
from ..transport.row import Row
from ..weights import Mover, Weights, make_mover
from .digests import base_changes
from .meet import one_row
from .page import page
from .problem import build_base


@dataclass(frozen=True, eq=False)
class Replayed:
    """model: after `rounds` rounds (on several ranks this rank's part of it).  fingerprint: of all of its weights.

    notes: what the user should know of the base and of the folder it was written to.
    """

    model: nn.Module
    rounds: int
    fingerprint: str
    notes: tuple[str, ...] = ()


def replay(
    orbit: str | Path | Orbit,
    base: str,
    *,
    out: str | Path | None = None,
    rounds: int | None = None,
    revision: str | None = None,
    pad_token: str | None = None,
    method: str | None = None,
) -> Replayed:
    """Rebuild the fine-tuned model from its base model and an orbit; what `hpcfed orbit replay` does.

    orbit: a sealed orbit, a journal or a run folder.  base: folder or hub name of the base model, at `revision`, with
    `pad_token` as the run had it (default: what the orbit says).  out: a new folder to write the model to, for
    transformers' pipelines.
    rounds: stop after so many; default all.  method: FILE.py:NAME of the method that made the orbit, if it is one of
    the user's own; its code is run.

    Collective: all ranks of the launch are the shards of one model.  Raises HpcfedError, also if the orbit says another
    final fingerprint than what it rebuilds (alone; on several ranks see meet.py).
    """
    with one_row() as row:
        if out:
            free_folder(Path(out), row)
        saved = orbit if isinstance(orbit, Orbit) else load_any(orbit)
        if rounds is not None and rounds > saved.rounds:
            raise ConfigError(f"--rounds {rounds}: the orbit has only {saved.rounds} rounds")
        pad_token = pad_token or saved.header.task.get("pad_token")
        model, weights = build_base(saved.header, base, revision, pad_token, row)
        check_base(saved.header, weights, saved.header.dtype)
        replay_into(saved.header, saved.decisions[:rounds], weights, load_method(method) if method else None)
        fingerprint, whole = weights.fingerprint(), rounds in (None, saved.rounds)
        if whole and saved.fingerprint not in (None, fingerprint):
            raise HpcfedError(
                f"{saved.path}: replay gives fingerprint {fingerprint}, the run ended with {saved.fingerprint}"
            )
        config = ModelConfig(name=base, revision=revision, pad_token=pad_token)
        changes = base_changes(saved.path.parent, config)
        done = Replayed(model, saved.rounds if rounds is None else rounds, fingerprint, tuple(changes))
        if not out:
            return done
        command = f"hpcfed orbit replay {saved.path.name} --base {public_name(base)}"
        return save(
            done, saved.header, weights, config, row, Path(out), command + ("" if whole else f" --rounds {rounds}")
        )


def free_folder(out: Path, row: Row) -> None:
    """Collective over the row: raise ConfigError unless a model can be written to `out`."""

    def taken() -> bool:
        try:
            return out.exists() and (not out.is_dir() or any(out.iterdir()))
        except OSError as e:
            raise ConfigError(f"--out {out}: cannot be read: {e.strerror}") from None

    if row.any(row.together(taken)):
        raise ConfigError(f"--out {out}: is there already and not empty; nothing was written")


def save(
    done: Replayed, header: Header, weights: Weights, base: ModelConfig, row: Row, out: Path, command: str
) -> Replayed:
    """Collective over the row: write the folder `out`.  command: that README.md names, without `--out`."""
    text = page(header, done.rounds, done.fingerprint, f"{command} --out DIR")
    notes = save_shards(
        done.model,
        weights.slices,
        row,
        lambda whole: save_model(whole, base, header.labels, header.task.get("pad_token"), text, out),
    )
    return replace(done, notes=(*done.notes, *(notes or ())))


def check_base(header: Header, weights: Weights, dtype: str) -> None:
    """Raise OrbitError unless `weights` is the model the orbit starts from."""
    if dtype != header.dtype:
        raise OrbitError(f"the orbit was made with {header.dtype} weights, this model is loaded in {dtype}")
    if weights.layout_hash != header.layout_hash:
        raise OrbitError(
            f"the orbit belongs to another parameter layout ({header.layout_hash}, this model {weights.layout_hash}): "
            f"its base model is {header.base_model!r}, trained parameters {list(header.train_only) or 'all'}"
            "; an orbit of before may go by names that only the transformers that made it has"
        )
    fingerprint = weights.fingerprint()
    if fingerprint != header.base_fingerprint:
        raise OrbitError(
            f"the orbit starts from other weights: base fingerprint {header.base_fingerprint}, this model has "
            f"{fingerprint}; its base model is {header.base_model!r}"
        )


def replay_into(header: Header, decisions: Sequence[bytes], weights: Weights, method: Method | None = None) -> None:
    """Move `weights` from the base model through the given rounds (from round 0), in one pass where no optimiser is.

    method: that made the orbit, where hpcfed does not know it.  Raises OrbitError for a header that cannot be true.
    """
    algorithm = make_algorithm(header, method)
    try:
        replay_on(make_mover(header, weights, last=True), algorithm, decisions)
    except (ConfigError, TypeError, ValueError) as e:  # a recipe's fault is a stranger's here
        raise OrbitError(f"orbit header: its settings do not make an optimiser ({e})") from None


def replay_on(mover: Mover, algorithm: Algorithm, decisions: Sequence[bytes]) -> None:
    """Move the mover's weights, which are those of the base model now, through the given rounds (from round 0)."""
    first = max(0, len(decisions) - 1) if algorithm.cumulative else 0
    mover.apply([algorithm.decode(decision, t) for t, decision in enumerate(decisions[first:], first)])
