"""Why a runtime can't be built. Each names the thing, the cause and the remedy."""

from __future__ import annotations

import re

ADDRESS = re.compile(r"\b(?:https?|file|ftp)://[^\s)`]+")


class CannotBuild(Exception):
    """A runtime can't be built for a platform.

    *detail* is what the installer printed. It may name addresses of package indexes, and must not be stored.
    """

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


def without_addresses(text: str) -> str:
    """Return *text* without addresses of package indexes, which may contain credentials."""
    return ADDRESS.sub("(an address)", text)
