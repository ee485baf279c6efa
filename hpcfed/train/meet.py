"""The ranks of a launch meet, as every command and every public function does before its work.

Promise  alone, an error is raised to the caller; on several ranks it is said once and ends all of them, since the
         others would wait for ever for the one that gave up
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from ..config import Recipe
from ..errors import HpcfedError
from ..transport.base import Transport, agree
from ..transport.choose import choose, spread
from ..transport.guard import guard
from ..transport.launch import Launch, discover
from ..transport.row import Row


@dataclass(frozen=True, eq=False)
class Meeting:
    """recipe: the same on every rank.  transport: its rows of mesh.shards ranks.  launch: who started this rank."""

    recipe: Recipe
    transport: Transport
    launch: Launch


@contextmanager
def meet(load: Callable[[], Recipe]) -> Iterator[Meeting]:
    """Collective: the recipe, and the transport it asks for; what is wrong with the recipe is said once, by row 0."""
    launch = discover()
    recipe, problem = None, None
    with _ending(launch):
        try:
            recipe = load()
        except HpcfedError as error:
            if launch.size == 1:
                raise
            problem = str(error)
        transport = choose(launch, *((recipe.mesh.transport, recipe.mesh.device) if recipe else ()))
    with _ending(transport):
        agree(transport, problem)
        assert recipe
        transport = spread(transport, launch, recipe.mesh.shards, recipe.mesh.device)
    with _ending(transport):
        yield Meeting(recipe, transport, launch)
    transport.close()


@contextmanager
def one_row() -> Iterator[Row]:
    """Collective: all ranks of the launch as the shards of one row."""
    launch = discover()
    with _ending(launch):
        transport = choose(launch)
    with _ending(transport):
        transport = spread(transport, launch, launch.size)
    with _ending(transport):
        yield transport.row
    transport.close()


def _ending(where: Transport | Launch) -> AbstractContextManager[None]:
    """Inside, whatever goes wrong on one of several ranks ends all of them."""
    ranks = where.rows * where.row.shards if isinstance(where, Transport) else where.size
    return guard(where) if ranks > 1 else nullcontext()
