"""Reads a directory as a tree. Only files that have changed since the previous scan are read.

What travels: every regular file, whatever its name or suffix. Links to files and directories below the same root travel as what
they point to. Not what `.remoteignore` in the root names, in the syntax of `.gitignore`, nor what :data:`ALWAYS_IGNORED` names
unless `.remoteignore` re-includes it. `.airflowignore` excludes files from parsing only: Dags may import them, so they travel.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pathspec
from airflow_remote_protocol.trees import MAX_PATH_BYTES, BadTree, Entry, Tree, check_path

IGNORE_FILE = ".remoteignore"
ALWAYS_IGNORED = (".git", "__pycache__", "*.pyc", ".venv", "node_modules")
LONGEST_IGNORE_FILE = 1 << 20
SETTLED_NS = 2_000_000_000
"""How old a file's last change must be for its stamp to be trusted. A file that changes twice within the resolution of its file
system's time stamps (2 s on FAT, some ms elsewhere) may have the same stamp afterwards. Git calls such entries racy."""
TRIES = 5
"""How often to repeat a scan during which files changed, before what each file had when it was read is taken."""
AGAIN_AFTER_S = 0.2
CHUNK_BYTES = 1 << 20
PAUSE_EVERY = 200
"""Files to list between two pauses: about a millisecond's work."""


class Unpublishable(Exception):
    """The directory can't be a tree. The text names the file or directory, the cause and the remedy."""


class Moved(Exception):
    """A file or directory changed or disappeared while it was read; the text names it. Scan again."""


@dataclass(frozen=True)
class Limits:
    """The largest tree to publish; see `[remote] tree_files`, `tree_bytes` and `blob_bytes`."""

    files: int
    bytes: int
    file_bytes: int


class Stamp(NamedTuple):
    """What changes when a file's content or mode changes."""

    mtime_ns: int
    size: int
    inode: int
    ctime_ns: int
    device: int
    executable: bool

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(
            status.st_mtime_ns,
            status.st_size,
            status.st_ino,
            status.st_ctime_ns,
            status.st_dev,
            bool(status.st_mode & stat.S_IXUSR),
        )

    def is_of(self, status: os.stat_result) -> bool:
        """Return whether *status* has this stamp. It makes no object: an unchanged scan must not start a garbage collection,
        which would hold up all threads of an API server for some 0.2 s.
        """
        return (
            self.mtime_ns == status.st_mtime_ns
            and self.size == status.st_size
            and self.inode == status.st_ino
            and self.ctime_ns == status.st_ctime_ns
            and self.device == status.st_dev
            and self.executable == bool(status.st_mode & stat.S_IXUSR)
        )


class Seen(NamedTuple):
    """A file as it was read."""

    place: str
    """The path that was read: links and forms of Unicode can make it differ from the path in the tree."""
    stamp: Stamp
    sha256: str
    is_settled: bool
    """Whether an equal stamp proves equal content."""


@dataclass(frozen=True)
class ScanState:
    """What a scan leaves for the next one of the same directory."""

    root: str = ""
    """Its real path; another one means that a link was switched, as git-sync does."""
    rules: bytes = b""
    """The content of `.remoteignore`."""
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """By path in the tree."""
    tree: Tree | None = None
    restless: tuple[str, ...] = ()
    """Files that changed during each try of the scan."""


class _Found(NamedTuple):
    """A file that is new or has changed: the path that is read, and its stamp."""

    place: str
    stamp: Stamp


_Files = Mapping[str, "_Found | Seen"]
"""The files of a directory by their path in the tree; those that are as they were seen, as they were seen."""


def scan(
    root: Path,
    previous: ScanState = ScanState(),
    *,
    limits: Limits,
    ignored: Sequence[str] = ALWAYS_IGNORED,
    pause: Callable[[], None] = lambda: None,
    now_ns: Callable[[], int] = time.time_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Tree, ScanState]:
    """Return the tree of *root*, and the state for the next scan. The tree is the same object if nothing has changed.

    *ignored* are patterns of what does not travel, as in `.gitignore`; they are the same in all scans that continue each other.
    *pause* is called often, so that a caller in a busy process can give way.

    Raises:
        Unpublishable: the directory can't be read, or can't be a tree.
        Moved: it disappeared while it was read.
    """
    changed: tuple[str, ...] = ()
    restless: frozenset[str] | None = None
    for left in reversed(range(TRIES)):
        try:
            real = _real(root)
            rules = _rules(real)
            is_same = real == previous.root and rules == previous.rules
            found = _walk(real, _Ignored(ignored, rules), known=previous.seen if is_same else {}, limits=limits, pause=pause)
            if is_same and previous.tree is not None and _is_unchanged(found, previous):
                return previous.tree, previous
            seen = _read(found, limits=limits, pause=pause, now_ns=now_ns)
            tree = _tree(seen, previous.tree)
            if _real(root) != real or _rules(real) != rules:
                raise Moved(f"{root} was replaced while it was read")
            changed = _changed(_walk(real, _Ignored(ignored, rules), known=seen, limits=limits, pause=pause), seen)
        except Moved:
            if not left:
                raise
            restless = None
        else:
            restless = frozenset(changed) if restless is None else restless & frozenset(changed)
            previous = ScanState(real, rules, seen, tree, tuple(sorted(restless)) if changed else ())
            if not changed or not left:
                return tree, previous
        sleep(AGAIN_AFTER_S)
    raise AssertionError("the last try returns or raises")


def read_file(path: str, seen: Seen) -> bytes:
    """Return the content of a scanned file.

    Raises:
        Moved: it is not what the scan has read.
        Unpublishable: it can't be read.
    """
    try:
        content = Path(seen.place).read_bytes()
    except FileNotFoundError:
        raise Moved(f"{path} disappeared while it was read") from None
    except OSError as error:
        raise Unpublishable(_unreadable(path, error)) from None
    if hashlib.sha256(content).hexdigest() != seen.sha256:
        raise Moved(f"{path} changed while it was read")
    return content


def _real(root: Path) -> str:
    try:
        real = os.path.realpath(root, strict=True)
        if not stat.S_ISDIR(Path(real).stat().st_mode):
            raise Unpublishable(f"{root} is not a directory")
    except OSError as error:
        raise Unpublishable(
            f"the directory {root} can't be read: {error.strerror or error}; check the path and its permissions"
        ) from None
    return real


def _rules(real: str) -> bytes:
    """Return the content of `.remoteignore`; empty if the file does not exist."""
    try:
        with Path(real, IGNORE_FILE).open("rb") as file:
            rules = file.read(LONGEST_IGNORE_FILE + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Unpublishable(_unreadable(IGNORE_FILE, error)) from None
    if len(rules) > LONGEST_IGNORE_FILE:
        raise Unpublishable(f"{IGNORE_FILE} has more than {LONGEST_IGNORE_FILE} bytes; shorten it")
    return rules


class _Ignored:
    """What not to publish. A directory that is ignored is not entered, as by git, so nothing below it can be included again."""

    def __init__(self, always: Sequence[str], rules: bytes) -> None:
        try:
            self._of_files = pathspec.GitIgnoreSpec.from_lines([*always, *rules.decode().splitlines()])
        except ValueError as error:  # also a UnicodeDecodeError, and a pattern that is not valid
            raise Unpublishable(f"{IGNORE_FILE} can't be used: {error}; correct it") from None
        # For a directory itself the last pattern decides; GitIgnoreSpec decides about files below it, where `!*/` means nothing.
        self._of_directories = pathspec.PathSpec(self._of_files.patterns)

    def has_file(self, path: str) -> bool:
        return self._of_files.match_file(path)

    def has_directory(self, path: str) -> bool:
        return self._of_directories.match_file(path + "/")


def _walk(real: str, ignored: _Ignored, *, known: Mapping[str, Seen], limits: Limits, pause: Callable[[], None]) -> _Files:
    """Return the files to publish, by their path in the tree. *known* are paths that are known not to be ignored.

    Raises:
        Unpublishable: something is there that no tree can have.
        Moved: a directory disappeared.
    """
    walk = _Walk(real, ignored, known, limits, pause)
    walk.directory(real, "", (_identity(Path(real).stat()),))
    return walk.found


class _Walk:
    def __init__(
        self, real: str, ignored: _Ignored, known: Mapping[str, Seen], limits: Limits, pause: Callable[[], None]
    ) -> None:
        self.found: dict[str, _Found | Seen] = {}
        self._real = real
        self._inside = real.rstrip("/") + "/"
        self._ignored = ignored
        self._known = known
        self._limits = limits
        self._pause = pause
        self._bytes = 0

    def directory(self, place: str, prefix: str, chain: tuple[tuple[int, int], ...]) -> None:
        """Add what is below *place*. *chain* identifies the directories that lead to it, to find links that loop."""
        for number, item in enumerate(self._list(place, prefix)):
            if number % PAUSE_EVERY == 0:
                self._pause()
            path = prefix + _name(item.name)
            try:
                if item.is_symlink():
                    self._link(item.path, path, chain)
                elif item.is_dir(follow_symlinks=False):
                    self._enter(item.path, path, chain, item.stat(follow_symlinks=False))
                elif path in self._known or not self._ignored.has_file(path):
                    self._file(item.path, path, item.stat(follow_symlinks=False))
            except FileNotFoundError:
                raise Moved(f"{path} disappeared while it was read") from None
            except OSError as error:
                raise Unpublishable(_unreadable(path, error)) from None

    def _list(self, place: str, prefix: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(place) as items:
                return sorted(items, key=lambda item: item.name)
        except FileNotFoundError:
            raise Moved(f"{prefix or place} disappeared while it was read") from None
        except OSError as error:
            raise Unpublishable(_unreadable(prefix or place, error)) from None

    def _enter(self, place: str, path: str, chain: tuple[tuple[int, int], ...], status: os.stat_result) -> None:
        if self._ignored.has_directory(path):
            return
        if len(path) > MAX_PATH_BYTES:  # no file below it could have a path that is allowed
            raise Unpublishable(f"the directory {path[:100]}… has a longer path than {MAX_PATH_BYTES} bytes; shorten it")
        if (identity := _identity(status)) in chain:
            raise Unpublishable(f"the link {path} leads to a directory that contains it; remove it, or name it in {IGNORE_FILE}")
        self.directory(place, path + "/", (*chain, identity))

    def _link(self, place: str, path: str, chain: tuple[tuple[int, int], ...]) -> None:
        if self._ignored.has_file(path) or self._ignored.has_directory(path):
            return
        target = os.path.realpath(place)
        try:
            status = Path(place).stat()
        except FileNotFoundError:
            return  # it leads nowhere, here as on a worker; editors lock files by such links
        if target != self._real and not target.startswith(self._inside):
            raise Unpublishable(
                f"the link {path} leads out of the bundle, to {target}; put a copy in its place, or name it in {IGNORE_FILE}"
            )
        if stat.S_ISDIR(status.st_mode):
            self._enter(place, path, chain, status)
        else:
            self._file(place, path, status)

    def _file(self, place: str, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise Unpublishable(
                f"{path} is a {_kind(status.st_mode)}, which can't travel; remove it, or name it in {IGNORE_FILE}"
            )
        if path not in self._known:
            try:
                check_path(path)
            except BadTree as error:
                raise Unpublishable(f"{error}, or name it in {IGNORE_FILE}") from None
        if path in self.found:
            raise Unpublishable(f"two files have the name {path}, in two forms of Unicode; rename one")
        if status.st_size > self._limits.file_bytes:
            raise Unpublishable(
                f"{path} has {status.st_size} bytes; [remote] blob_bytes allows {self._limits.file_bytes}. "
                f"Name it in {IGNORE_FILE}, or raise the limit"
            )
        known = self._known.get(path)
        is_same = known is not None and known.place == place and known.stamp.is_of(status)
        self.found[path] = known if is_same and known is not None else _Found(place, Stamp.of(status))
        self._bytes += status.st_size
        if len(self.found) > self._limits.files:
            raise Unpublishable(
                f"there are more than {self._limits.files} files ([remote] tree_files), the last one found is {path}. "
                f"Name in {IGNORE_FILE} what Dags don't need, or raise the limit"
            )
        if self._bytes > self._limits.bytes:
            raise Unpublishable(
                f"the files have more than {self._limits.bytes} bytes ([remote] tree_bytes), the last one found is {path}. "
                f"Name in {IGNORE_FILE} what Dags don't need, or raise the limit"
            )


def _name(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _kind(mode: int) -> str:
    kinds = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "named pipe", stat.S_IFBLK: "device", stat.S_IFCHR: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")


def _unreadable(path: str, error: OSError) -> str:
    return f"{path} can't be read: {error.strerror or error}; correct its permissions, or name it in {IGNORE_FILE}"


def _is_unchanged(found: _Files, previous: ScanState) -> bool:
    return len(found) == len(previous.seen) and all(isinstance(file, Seen) and file.is_settled for file in found.values())


def _read(found: _Files, *, limits: Limits, pause: Callable[[], None], now_ns: Callable[[], int]) -> dict[str, Seen]:
    """Return all files as read. Files whose stamp proves that they haven't changed are not read again."""
    read = {}
    for path, file in found.items():
        if isinstance(file, Seen) and file.is_settled:
            read[path] = file
        else:
            read[path] = _hash(file.place, path, limits=limits, pause=pause, now_ns=now_ns)
    return read


def _hash(place: str, path: str, *, limits: Limits, pause: Callable[[], None], now_ns: Callable[[], int]) -> Seen:
    """Return a file as it is at one moment.

    Raises:
        Moved: it disappeared, or changed each time that it was read.
        Unpublishable: it can't be read.
    """
    for _ in range(TRIES):
        try:
            with Path(place).open("rb", buffering=0) as file:
                begun_ns = now_ns()
                before = Stamp.of(os.fstat(file.fileno()))
                digest, size = hashlib.sha256(), 0
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    pause()
                    if size > limits.file_bytes:
                        break
                after = Stamp.of(os.fstat(file.fileno()))
        except FileNotFoundError:
            raise Moved(f"{path} disappeared while it was read") from None
        except OSError as error:
            raise Unpublishable(_unreadable(path, error)) from None
        if before == after and size == after.size:
            latest_ns = max(after.ctime_ns, after.mtime_ns if after.mtime_ns <= begun_ns else 0)  # anyone can set mtime
            is_settled = begun_ns - latest_ns > SETTLED_NS
            return Seen(place, after, digest.hexdigest(), is_settled)
    raise Moved(f"{path} changes all the time; name it in {IGNORE_FILE} if Dags don't need it")


def _tree(seen: Mapping[str, Seen], previous: Tree | None) -> Tree:
    try:
        tree = Tree.of(Entry(path, file.sha256, file.stamp.size, file.stamp.executable) for path, file in seen.items())
    except BadTree as error:
        raise Unpublishable(f"{error}, or name it in {IGNORE_FILE}") from None
    return previous if previous is not None and previous.digest == tree.digest else tree


def _changed(found: _Files, seen: Mapping[str, Seen]) -> tuple[str, ...]:
    """Return the paths that differ between what is there now and what was read."""
    differ = [path for path, file in found.items() if not isinstance(file, Seen)]
    return tuple(sorted([*differ, *(path for path in seen if path not in found)]))
