"""The commands about orbits: show, verify, replay. Heavy imports wait till needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, HpcfedError
from ..transport.launch import discover

if TYPE_CHECKING:
    from ..transport.row import Row
orbit_app = typer.Typer(
    no_args_is_help=True,
    help="Show, verify and replay orbits: the files that rebuild a model.",
    epilog="Example: hpcfed orbit show runs/digits",
)
Revision = Annotated[str | None, typer.Option(help="The base model's revision on the hub, as model.revision.")]
PadToken = Annotated[str | None, typer.Option(help="The token to pad with, as model.pad_token.")]
OrbitFile = Annotated[Path, typer.Argument(metavar="FILE", help="A sealed orbit, a journal, or a run folder.")]


@orbit_app.command("show", epilog="Example: hpcfed orbit show runs/digits/orbit.safetensors")
def orbit_show(file: OrbitFile) -> None:
    """Print what an orbit says about itself."""
    from ..orbit import load_any
    from .tables import orbit_table

    orbit_table(load_any(file))


@orbit_app.command("verify", epilog="Example: hpcfed orbit verify runs/digits --base digits-vit")
def orbit_verify(
    file: OrbitFile,
    base: Annotated[
        str | None, typer.Option(help="Base model (folder or hub name): replay and compare fingerprints.")
    ] = None,
    revision: Revision = None,
    pad_token: PadToken = None,
) -> None:
    """Check an orbit's bytes; with --base, that it rebuilds exactly the model the run ended with."""
    from ..orbit import load_any

    found = load_any(file)
    for note in found.notes if discover().rank == 0 else ():
        print(note)
    if discover().rank == 0:
        print(f"{file}: intact, {found.rounds} rounds of {found.header.algorithm}")
    if base is None:
        return
    with _one_row() as row:
        _, weights = _replayed(found, base, None, revision, pad_token, row)
        fingerprint = weights.fingerprint()
        if found.fingerprint not in (None, fingerprint):
            raise HpcfedError(f"{file}: replay gives fingerprint {fingerprint}, the run ended with {found.fingerprint}")
        if row.shard == 0 and found.fingerprint is None:
            print(f"replayed to {fingerprint}; a journal holds no final fingerprint to compare with")
        elif row.shard == 0:
            print(f"replay gives fingerprint {fingerprint}, as the run did")


@orbit_app.command(
    "replay", epilog="Example: hpcfed orbit replay runs/digits --base digits-vit --out tuned --rounds 500"
)
def orbit_replay(
    file: OrbitFile,
    base: Annotated[str, typer.Option(help="Base model: folder or hub name.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to; transformers' from_pretrained loads it.")],
    rounds: Annotated[int | None, typer.Option(min=0, help="Stop after this many rounds; default all.")] = None,
    revision: Revision = None,
    pad_token: PadToken = None,
) -> None:
    """Rebuild the fine-tuned model from its base model and an orbit."""
    from ..model import save_shards
    from ..orbit import load_any

    with _one_row() as row:
        if row.any(out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise ConfigError(f"--out {out}: is there already and not empty; nothing was written")
        found = load_any(file)
        model, weights = _replayed(found, base, rounds, revision, pad_token, row)
        fingerprint = weights.fingerprint()
        if found.fingerprint not in (None, fingerprint) and rounds in (None, found.rounds):
            raise HpcfedError(f"{file}: replay gives fingerprint {fingerprint}, the run ended with {found.fingerprint}")
        save_shards(model, weights.slices, row, base, out)
        if row.shard == 0:
            print(
                f"{out}: {found.header.base_model} after {found.rounds if rounds is None else rounds} rounds, "
                f"fingerprint {fingerprint}"
            )


@contextmanager
def _one_row() -> Iterator[Row]:
    """Collective: all ranks of the launch as the shards of one row; what goes wrong on one ends all."""
    from ..transport.choose import choose, spread
    from ..transport.guard import guard

    launch = discover()
    with guard(launch):
        transport = choose(launch)
    with guard(transport):
        transport = spread(transport, launch, launch.size)
    with guard(transport):
        yield transport.inside
    transport.close()


def _replayed(orbit: Any, base: str, rounds: int | None, revision: str | None, pad_token: str | None, row: Row) -> Any:
    from ..train.problem import build_base
    from ..train.replay import check_base, replay

    if rounds is not None and rounds > orbit.rounds:
        raise ConfigError(f"--rounds {rounds}: the orbit has only {orbit.rounds} rounds")
    model, weights = build_base(orbit.header, base, revision, pad_token, row)
    check_base(orbit.header, weights, orbit.header.dtype)
    replay(orbit.header, orbit.payloads[:rounds], weights)
    return model, weights
