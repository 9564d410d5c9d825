"""Where a tree that central sends is checked before anything of it is used: Dag code, a runtime or a release of the worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

Check = Callable[[str, str, int], Awaitable[str]]
"""From a tree's digest, its kind (`runtime`, `release`) and its serial: why this site
does not accept it; empty: it does.

Called before the tree is fetched. It may ask central for statements, and raise what that raises (:mod:`..errors`).
"""
RUNTIME = "runtime"
RELEASE = "release"


async def accept_code(tree: str, bundle: str) -> str:
    """Accept the code of every bundle."""
    return ""


async def accept_all(tree: str, kind: str, serial: int) -> str:
    """Accept every tree."""
    return ""


Proven = Callable[[str, str], None]
"""Called with the tree and the kind of what was accepted, once it works: nothing older is accepted from then on."""


def note_nothing(tree: str, kind: str) -> None:
    """The default of :data:`Proven`."""
