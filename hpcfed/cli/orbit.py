"""The commands about orbits: show, verify, replay. Heavy imports wait till needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..transport.launch import discover

if TYPE_CHECKING:
    pass
orbit_app = typer.Typer(
    no_args_is_help=True,
    help="Show, verify and replay orbits: the files that rebuild a model.",
    epilog="Example: hpcfed orbit show runs/digits",
)
Revision = Annotated[str | None, typer.Option(help="The base model's revision on the hub, as model.revision.")]
PadToken = Annotated[str | None, typer.Option(help="The token to pad with, as model.pad_token.")]
MethodFile = Annotated[
    str | None,
    typer.Option(metavar="FILE.py:NAME", help="The method that made it, if it is your own; its code is run."),
]
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
    method: MethodFile = None,
) -> None:
    """Check an orbit's bytes; with --base, that it rebuilds exactly the model the run ended with."""
    from ..orbit import load_any

    orbit = load_any(file)
    first = discover().rank == 0
    if first:
        for note in orbit.notes:
            print(note)
        print(f"{file}: intact, {orbit.rounds} rounds of {orbit.header.algorithm}")
    if base is None:
        return
    from ..train.replay import replay

    done = replay(orbit, base, revision=revision, pad_token=pad_token, method=method)
    fingerprint = done.fingerprint
    for note in done.notes if first else ():
        print(note)
    if first and orbit.fingerprint is None:
        print(f"replayed to {fingerprint}; a journal holds no final fingerprint to compare with")
    elif first:
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
    method: MethodFile = None,
) -> None:
    """Rebuild the fine-tuned model from its base model and an orbit."""
    from ..orbit import load_any
    from ..train.replay import replay

    orbit = load_any(file)
    done = replay(orbit, base, out=out, rounds=rounds, revision=revision, pad_token=pad_token, method=method)
    if discover().rank == 0:
        print(
            "\n".join(
                [
                    *done.notes,
                    f"{out}: {orbit.header.base_model} after {done.rounds} rounds, fingerprint {done.fingerprint}",
                ]
            )
        )
