"""A tree: a directory of files as a manifest, named by the manifest's SHA-256. The form in which code travels to workers.

The manifest is text in UTF-8: :data:`HEADER`, then one line for each file, by the bytes of their paths:

    <sha256> <size> <- or x> <path>

`x` marks an executable file. A tree has no links, no owners and no empty directories. Its paths are valid and distinct on Linux,
Windows and macOS. Equal directories have equal manifests, so a digest tells whether two computers have the same code.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

HEADER = "airflow-remote-tree 1"
MAX_PATH_BYTES = 240
"""In UTF-8. Windows allows 260 characters for a whole path unless long paths are switched on."""
MAX_FILES = 100_000
MAX_MANIFEST_BYTES = 32 << 20
MAX_FILE_BYTES = 1 << 40

DIGEST = re.compile(r"[0-9a-f]{64}\Z")
"""A SHA-256 in hexadecimal."""
LINE = re.compile(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,12}) ([-x]) (.+)\Z")
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\\:<>"|?*]')
"""What no path may contain: control characters, and characters that Windows refuses."""
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$", *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³")}
)
"""Names of devices on Windows, with any suffix."""
PLAIN = re.compile(r"(?:[a-z0-9_]{5,}(?:\.[a-z0-9_]+)?/)*[a-z0-9_]{5,}(?:\.[a-z0-9_]+)?\Z", re.ASCII)
"""Paths that break no rule but perhaps the length: most of them. A name of a device has four characters at most."""


class BadTree(ValueError):
    """Not a tree. The text names the path and the rule that it breaks."""


class Entry(NamedTuple):
    """One file."""

    path: str
    """Relative, with `/`."""
    sha256: str
    size: int
    executable: bool = False


def check_path(path: str) -> None:
    """Return if a tree may have a file at *path*.

    Raises:
        BadTree: the path breaks a rule.
    """
    if len(path) > MAX_PATH_BYTES or not path.isascii():
        _check_text(path)
    if PLAIN.match(path):
        return
    if found := FORBIDDEN.search(path):
        raise BadTree(f"the path {_shown(path)} contains {found[0]!r}, which not every system allows in a file's name; rename it")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise BadTree(f"the path {_shown(path)} must be relative, without empty parts, '.' and '..'")
        if part[-1] in ". ":
            raise BadTree(f"the path {_shown(path)} has the part {part!r}: Windows drops a dot or space at its end; rename it")
        if part.split(".", 1)[0].rstrip(" ").lower() in DEVICES:
            raise BadTree(f"the path {_shown(path)} has the part {part!r}, which names a device on Windows; rename it")


def _check_text(path: str) -> None:
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise BadTree(f"the path {_shown(path)} is not valid Unicode; rename it") from None
    if len(encoded) > MAX_PATH_BYTES:
        raise BadTree(f"the path {_shown(path)} has {len(encoded)} bytes; {MAX_PATH_BYTES} is the limit; shorten it")
    if not unicodedata.is_normalized("NFC", path):
        raise BadTree(f"the path {_shown(path)} is not in Unicode's normal form NFC")


def _shown(path: str) -> str:
    return ascii(path if len(path) <= 200 else f"{path[:200]}…")


class Tree:
    """A checked tree. Immutable. Make one by :meth:`of` or :meth:`parse`."""

    def __init__(self, entries: tuple[Entry, ...], manifest: bytes) -> None:
        self.entries = entries
        """By path, in the order of their UTF-8 bytes."""
        self.manifest = manifest
        self.digest = hashlib.sha256(manifest).hexdigest()

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Tree:
        """Return the tree of *entries*, in any order.

        Raises:
            BadTree: a path, a digest or a size is not allowed, or two entries exclude each other.
        """
        ordered = tuple(sorted(entries))  # the order of code points is the order of UTF-8 bytes
        _check(ordered)
        lines = [f"{entry.sha256} {entry.size} {'x' if entry.executable else '-'} {entry.path}\n" for entry in ordered]
        manifest = "".join([HEADER, "\n", *lines]).encode()
        if len(manifest) > MAX_MANIFEST_BYTES:
            raise BadTree(f"the list of its files has {len(manifest)} bytes; {MAX_MANIFEST_BYTES} is the limit")
        return cls(ordered, manifest)

    @classmethod
    def parse(cls, manifest: bytes) -> Tree:
        """Return the tree that *manifest* describes.

        Raises:
            BadTree: it is not the manifest that :meth:`of` makes of its entries.
        """
        if len(manifest) > MAX_MANIFEST_BYTES:
            raise BadTree(f"the manifest has {len(manifest)} bytes; {MAX_MANIFEST_BYTES} is the limit")
        try:
            header, *lines = manifest.decode().split("\n")
        except UnicodeDecodeError as error:
            raise BadTree(f"the manifest is not UTF-8: {error}") from None
        if header != HEADER:
            raise BadTree(f"the manifest begins with {header[:50]!r}; {HEADER!r} is known")
        if not lines or lines.pop():
            raise BadTree("the manifest does not end with a line end")
        tree = cls.of(parse_line(line) for line in lines)
        if tree.manifest != manifest:
            raise BadTree("the manifest's lines are not in order")
        return tree

    @property
    def files(self) -> int:
        return len(self.entries)

    @cached_property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Size of each distinct content, by SHA-256, in the order of the entries."""
        return {entry.sha256: entry.size for entry in self.entries}

    def get(self, path: str) -> Entry | None:
        return self._by_path.get(path)

    @cached_property
    def _by_path(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in self.entries}


def parse_line(line: str) -> Entry:
    """Return the entry of one line of a manifest, without its line end. Its path is not checked.

    Raises:
        BadTree: the line is malformed.
    """
    found = LINE.match(line)
    if found is None:
        raise BadTree(f"the manifest has the malformed line {_shown(line)}")
    sha256, size, mode, path = found.groups()
    return Entry(path, sha256, int(size), mode == "x")


def _check(entries: tuple[Entry, ...]) -> None:
    """Check entries that are sorted by path."""
    if len(entries) > MAX_FILES:
        raise BadTree(f"it has {len(entries)} files; {MAX_FILES} is the limit")
    sizes: dict[str, int] = {}
    folded_files: dict[str, str] = {}
    folded_directories: dict[str, str] = {}
    for path, sha256, size, _ in entries:
        check_path(path)
        if not DIGEST.match(sha256):
            raise BadTree(f"the file {_shown(path)} has the SHA-256 {sha256[:70]!r}; it must be 64 hexadecimal digits")
        if not 0 <= size <= MAX_FILE_BYTES:
            raise BadTree(f"the file {_shown(path)} has {size} bytes; {MAX_FILE_BYTES} is the limit")
        if sizes.setdefault(sha256, size) != size:
            raise BadTree(f"the file {_shown(path)} has {size} bytes, and another one with the same SHA-256 {sizes[sha256]}")
        _add_distinct(folded_files, path)
        directory = path.rpartition("/")[0]
        while directory and folded_directories.get(_fold(directory)) != directory:
            _add_distinct(folded_directories, directory)
            directory = directory.rpartition("/")[0]
    if both := folded_files.keys() & folded_directories.keys():
        one = min(both)
        raise BadTree(f"{_shown(folded_files[one])} is a file, and {_shown(folded_directories[one])} is a directory; rename one")


def _add_distinct(seen: dict[str, str], path: str) -> None:
    folded = _fold(path)
    if (other := seen.get(folded)) is not None:
        what = "appears twice" if other == path else f"and {_shown(other)} are the same name on Windows and macOS; rename one"
        raise BadTree(f"the path {_shown(path)} {what}")
    seen[folded] = path


def _fold(path: str) -> str:
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path.casefold())
