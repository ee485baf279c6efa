"""One paper a file; config/methods.py is the table of them. Dense methods, which have no orbit, are in first_order/."""

from __future__ import annotations

from ..config import METHODS, load_method
from ..errors import OrbitError, did_you_mean
from ..orbit import Header
from .base import Algorithm, Last, Method, directions, diverged, pack_floats, unpack_floats
from .schedule import step_size


def make_algorithm(header: Header, method: Method | None = None) -> Algorithm:
    """The functions of the method that made an orbit with this header.

    method: where hpcfed does not know it.  OrbitError if it is another, or the header's settings do not make it.
    """
    if method is None:
        known = [name for name, traits in METHODS.items() if not traits.dense]
        if header.algorithm not in known:
            hint = did_you_mean(header.algorithm, known)
            raise OrbitError(
                f"orbit header: no method with an orbit is called {header.algorithm!r}{hint}; "
                "if it is one of a file of your own, name it: --method FILE.py:NAME"
            )
        method = load_method(header.algorithm)
        assert isinstance(method, Method)
    if method.name != header.algorithm:
        raise OrbitError(f"orbit header: made by {header.algorithm!r}, not by the method {method.name!r}")
    try:
        return method.make(header)
    except (KeyError, TypeError, ValueError) as e:
        raise OrbitError(f"orbit header: its settings do not make a {header.algorithm} ({e})") from None


__all__ = [
    "Algorithm",
    "Last",
    "Method",
    "directions",
    "diverged",
    "make_algorithm",
    "pack_floats",
    "step_size",
    "unpack_floats",
]
