"""The platform of a Python interpreter, as text: which wheels it can use. The form in which workers name theirs.

`cp<version of Python>-<system>[-<C library>]-<processor>`: `cp311-linux-gnu-x86_64`, `cp312-linux-musl-aarch64`,
`cp312-windows-x86_64`, `cp313-macos-aarch64`. Only CPython is supported.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PLATFORM = re.compile(r"cp3([0-9]{1,2})-(?:linux-(gnu|musl)|(windows|macos))-([a-z0-9_]{1,20})\Z")
PROCESSORS = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i386": "i686", "i586": "i686", "x86": "i686"}
"""Names that systems give to a processor that has another name here."""


class BadPlatform(ValueError):
    """Not the name of a platform."""


class Platform(NamedTuple):
    """A platform. Its text is :meth:`__str__`."""

    python: str
    """Minor version of CPython, such as `3.11`."""
    system: str
    """`linux`, `windows` or `macos`."""
    libc: str
    """`gnu` or `musl` on Linux; else empty."""
    processor: str
    """`x86_64`, `aarch64`, …"""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Return the platform that *text* names.

        Raises:
            BadPlatform: it names none.
        """
        found = PLATFORM.match(text)
        if found is None:
            raise BadPlatform(f"{text[:50]!r} is not a platform such as cp311-linux-gnu-x86_64 or cp312-windows-x86_64")
        minor, libc, system, processor = found.groups()
        return cls(f"3.{int(minor)}", system or "linux", libc or "", normal_processor(processor))

    def __str__(self) -> str:
        parts = [f"cp{self.python.replace('.', '')}", self.system, *([self.libc] if self.libc else []), self.processor]
        return "-".join(parts)


def normal_processor(name: str) -> str:
    """Return the one name of a processor of which systems know several."""
    lower = name.lower()
    return PROCESSORS.get(lower, lower)
