"""Where a tree that central sends is checked before anything of it is used: Dag code, a runtime or a release of the worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

Check = Callable[[str, str, str], Awaitable[str]]
"""From a tree's digest, its kind (`runtime`, `release`) and the name by which central sends it: why this site does not accept it;
empty: it does.

Called before the tree is fetched. It may ask central for statements, and raise what that raises (:mod:`..errors`).
"""
RUNTIME = "runtime"
RELEASE = "release"
WORKER = "worker"
"""The name of all releases of the worker."""


async def accept_code(tree: str, bundle: str) -> str:
    """Accept the code of every bundle."""
    return ""


async def accept_all(tree: str, kind: str, name: str) -> str:
    """Accept every tree."""
    return ""


Proven = Callable[[str, str, str], None]
"""Called with tree, kind and name of what was accepted, once it works: nothing older is accepted from then on."""


def note_nothing(tree: str, kind: str, name: str) -> None:
    """The default of :data:`Proven`."""
