"""Trees on this machine: the only module that writes below `<code>/trees`. Every method blocks: call it in a thread.

| path | content |
|---|---|
| `<tree>/manifest` | the manifest, whose SHA-256 is the directory's name; its modification time is the tree's last use |
| `<tree>/about.json` | :class:`About` |
| `<tree>/files/` | the files: 0444 or 0555, in directories that only this user can change (0755, for bytecode) |
| `.new-…`, `.gone-…` | a tree that is being made or removed; the next start of the daemon removes it |

A tree appears by one rename, complete and verified. Its files are hard links to those of an earlier tree where these are equal:
a file that a task damages may be damaged in several trees. It is replaced by a rename: a job that runs keeps the file it opened.

The modification time of a file follows from its content. Python then never uses bytecode that was made from another content, and
:meth:`TreeStore.check` finds a changed file without reading it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from airflow_remote_protocol.packs import WrongHash
from airflow_remote_protocol.trees import DIGEST, Entry, Tree, parse_line

from airflow_remote_worker import system
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.state import files

log = logging.getLogger(__name__)

Content = Iterator[bytes]
"""A file's content in pieces. Its end verifies it."""

NOT_LINKED = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})
"""The file has too many links, or the file system has none: the file is copied."""
PIECE = 256 * 1024
BLOCK = 512
"""Unit of `st_blocks`."""
OLDEST_STAMP_S = 1_000_000_000
"""In September 2001. File systems and bytecode store times from 1980 to 2106."""


class Stopped(Exception):
    """Nobody needs the tree any more."""


class About(msgspec.Struct, frozen=True):
    """`about.json`: where a tree comes from. Nothing relies on it but the choice of a base."""

    bundle: str
    """Or `runtime:` and the name of the runtime, or `release:worker`."""
    version: str
    made_at: float
    """Wall clock."""
    boot: str = ""
    """The boot in which every file was read and verified. Files that were written just before a power cut may be lost."""


class HeldTree(NamedTuple):
    digest: str
    used_at: float
    """Wall clock."""
    about: About | None


class TreeStore:
    """All trees of this worker, in the directory *root*."""

    def __init__(self, root: Path, *, boot: str | None = None) -> None:
        self._root = root
        self._boot = system.boot_id() if boot is None else boot

    def prepare(self) -> None:
        """Create the directory, and remove what an interrupted daemon has left."""
        self._root.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._root.chmod(0o755)
        for path in self._root.iterdir():
            if path.name.startswith("."):
                _remove(path)

    # Reading

    def files_of(self, digest: str) -> Path:
        """Return the directory with the tree's files."""
        return self._path(digest) / "files"

    def has(self, digest: str) -> bool:
        return (self._path(digest) / "manifest").exists()

    def load(self, digest: str) -> Tree | None:
        """Return a tree of this machine; None if it isn't here, or its manifest is damaged."""
        try:
            manifest = (self._path(digest) / "manifest").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("the manifest of the tree %s can't be read (%s)", digest[:12], error)
            return None
        if hashlib.sha256(manifest).hexdigest() != digest:
            log.error("the manifest of the tree %s is damaged", digest[:12])
            return None
        # Its paths were checked before it was written; to check them again takes half of the time of a warm start.
        return Tree(tuple(parse_line(line) for line in manifest.decode().split("\n")[1:-1]), manifest)

    def held(self) -> list[HeldTree]:
        """Return all trees, the last used first."""
        found: list[HeldTree] = []
        with contextlib.suppress(FileNotFoundError):
            for path in self._root.iterdir():
                if DIGEST.match(path.name):
                    with contextlib.suppress(OSError):  # removed meanwhile
                        found.append(HeldTree(path.name, (path / "manifest").stat().st_mtime, _about(path)))
        return sorted(found, key=lambda tree: -tree.used_at)

    def newest_of(self, bundle: str) -> str | None:
        """Return the tree of *bundle* that was made last: a new tree of the bundle differs least from it."""
        of_bundle = [tree for tree in self.held() if tree.about and tree.about.bundle == bundle]
        return max(of_bundle, key=lambda tree: tree.about.made_at if tree.about else 0.0).digest if of_bundle else None

    def note_use(self, digest: str) -> None:
        """Note that the tree is used now."""
        with contextlib.suppress(OSError):
            os.utime(self._path(digest) / "manifest")

    def check(self, tree: Tree, *, stop: Callable[[], bool] = lambda: False) -> list[Entry]:
        """Return the files that are missing or damaged. Only files that look changed are read, all of them once in each boot.

        Raises:
            Stopped: *stop* has returned true.
        """
        path = self._path(tree.digest)
        about = _about(path)
        thorough = about is None or about.boot != self._boot
        root = path / "files"
        for directory in _directories(tree):
            _check_directory(root / directory)
        damaged = []
        for entry in tree.entries:
            if not _is_intact(f"{root}/{entry.path}", entry, thorough=thorough):
                damaged.append(entry)
            if thorough and stop():
                raise Stopped
        if thorough and about and not damaged:
            with contextlib.suppress(OSError):
                files.store(path / "about.json", msgspec.structs.replace(about, boot=self._boot))
        return damaged

    # Making and repairing

    def make(self, tree: Tree, bundle: str, version: str) -> NewTree:
        """Return a new tree, to be filled and then completed."""
        staging = self._root / f".new-{tree.digest[:16]}-{secrets.token_hex(4)}"
        staging.mkdir(mode=0o755)
        staging.chmod(0o755)  # whatever the umask: tasks may run as another user
        new = NewTree(staging, tree, self._path(tree.digest), About(bundle, version, time.time(), self._boot))
        for directory in _directories(tree):
            (staging / "files" / directory).mkdir(mode=0o755, exist_ok=True)
            (staging / "files" / directory).chmod(0o755)
        return new

    def repair(self, tree: Tree, damaged: Iterable[Entry]) -> Filling:
        """Return an object that replaces the files *damaged* one by one."""
        staging = self._root / f".new-{tree.digest[:16]}-{secrets.token_hex(4)}"
        staging.mkdir(mode=0o755)
        filling = Filling(staging, self.files_of(tree.digest), damaged)
        for directory in _directories(tree):
            _restore_directory(self.files_of(tree.digest) / directory, self._root)
        return filling

    # Removing

    def remove(self, digest: str) -> None:
        gone = self._root / f".gone-{digest[:16]}-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            self._path(digest).rename(gone)
            _remove(gone)

    def evict(self, *, pinned: Collection[str], most: int, free: int = 0) -> list[str]:
        """Remove trees, the last used last, until they take at most *most* bytes and *free* bytes are freed; return them.

        Trees in *pinned* stay. A file that several trees share is freed with the last of them.
        """
        held = self.held()
        sizes = {tree.digest: _inodes(self._path(tree.digest)) for tree in held}
        shared: Counter[tuple[int, int]] = Counter()
        bytes_of: dict[tuple[int, int], int] = {}
        for inodes in sizes.values():
            shared.update(inodes.keys())
            bytes_of.update(inodes)
        total, freed, evicted = sum(bytes_of.values()), 0, []
        for tree in reversed(held):
            if total <= most and freed >= free:
                break
            if tree.digest in pinned:
                continue
            self.remove(tree.digest)
            for inode in sizes[tree.digest]:
                shared[inode] -= 1
                if not shared[inode]:
                    total -= bytes_of[inode]
                    freed += bytes_of[inode]
            evicted.append(tree.digest)
        return evicted

    def _path(self, digest: str) -> Path:
        if not DIGEST.match(digest):
            raise ValueError(f"{digest[:80]!r} is not the digest of a tree")
        return self._root / digest


class Filling:
    """Puts files into the directory *target*, by renames, from verified contents or from another tree."""

    def __init__(self, staging: Path, target: Path, entries: Iterable[Entry]) -> None:
        self._staging = staging
        self._target = target
        self._missing: dict[str, list[Entry]] = {}
        self._lock = threading.Lock()
        for entry in entries:
            self._missing.setdefault(entry.sha256, []).append(entry)

    @property
    def missing(self) -> dict[str, int]:
        """SHA-256 and size of each content that some file still lacks, in the order of the tree."""
        return {sha256: entries[0].size for sha256, entries in self._missing.items()}

    def link_from(self, files_of_base: Path, base: Tree, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Link the files that *base* has as well, after reading them. A damaged one stays missing.

        Raises:
            Stopped: *stop* has returned true.
        """
        sources = {(entry.sha256, entry.executable): entry for entry in base.entries if entry.sha256 in self._missing}
        with self._lock:
            for sha256, entries in list(self._missing.items()):
                found = sources.get((sha256, entries[0].executable)) or sources.get((sha256, not entries[0].executable))
                if stop():
                    raise Stopped
                if found is not None and _has_hash(files_of_base / found.path, found):
                    self._place(files_of_base / found.path, entries, is_executable=found.executable)
                    del self._missing[sha256]

    def add(self, blobs: Iterable[tuple[str, Content]], *, stop: Callable[[], bool] = lambda: False) -> None:
        """Write the files of *blobs*. One that arrives damaged stays missing.

        Raises:
            BadPack: the rest of *blobs* can't be read.
            OSError: the disk is full or fails.
            Stopped: *stop* has returned true.
        """
        path = self._staging / "blob"
        with self._lock:
            for sha256, content in blobs:
                entries = self._missing.get(sha256)
                if entries is None:
                    continue
                try:
                    _write(path, _until(stop, content), entries[0])
                except WrongHash as error:
                    log.warning("%s; requesting it again", error)
                    continue
                self._place(path, entries, is_executable=entries[0].executable, moves=True)
                del self._missing[sha256]

    def discard(self) -> None:
        """Remove what is not in use. Waits for a thread that is still busy with it."""
        with self._lock:
            _remove(self._staging)

    def _place(self, source: Path, entries: list[Entry], *, is_executable: bool, moves: bool = False) -> None:
        """Put the content of *source*, which is correct, at the path of each of *entries*. *moves*: *source* is not kept."""
        temporary = self._staging / "file"
        for entry in entries:
            target = self._target / entry.path
            # All links of a file have the same mode. Empty files gain nothing from links, of which there may be too many.
            if moves:
                source.rename(temporary)
            elif entry.executable == is_executable and entry.size:
                _link(source, temporary, entry)
            else:
                _copy(source, temporary, entry)
            if target.is_dir() and not target.is_symlink():
                target.rename(self._staging / f"directory-{secrets.token_hex(4)}")
            temporary.replace(target)
            source, is_executable, moves = target, entry.executable, False


class NewTree(Filling):
    """A tree that nobody sees before :meth:`complete`."""

    def __init__(self, staging: Path, tree: Tree, path: Path, about: About) -> None:
        super().__init__(staging, staging / "files", tree.entries)
        self._tree = tree
        self._path = path
        self._about = about

    def complete(self) -> None:
        """Make the tree appear. All of its files must be there."""
        assert not self._missing, f"the tree {self._tree.digest[:12]} lacks {len(self._missing)} contents"
        files.write(self._staging / "manifest", self._tree.manifest)
        files.store(self._staging / "about.json", self._about)
        if self._path.exists():  # it was made at the same time, or its manifest is damaged
            gone = self._path.with_name(f".gone-{secrets.token_hex(8)}")
            self._path.rename(gone)
            self._staging.rename(self._path)
            _remove(gone)
        else:
            self._staging.rename(self._path)


def _until(stop: Callable[[], bool], content: Content) -> Content:
    for piece in content:
        if stop():
            raise Stopped
        yield piece
    if stop():
        raise Stopped


def stamp_of(sha256: str) -> int:
    """Return the modification time of a file with this content, in nanoseconds."""
    return (OLDEST_STAMP_S + int(sha256[:7], 16)) * 1_000_000_000


def _mode_of(entry: Entry) -> int:
    return 0o555 if entry.executable else 0o444


def _directories(tree: Tree) -> list[str]:
    """Return every directory of the tree, parents first, beginning with its root (empty)."""
    found = {""}
    for entry in tree.entries:
        directory = entry.path.rpartition("/")[0]
        while directory not in found:
            found.add(directory)
            directory = directory.rpartition("/")[0]
    return sorted(found)


def _check_directory(path: Path) -> None:
    """Restore the mode of a directory; what else is wrong shows in its files."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) != 0o755:
            path.chmod(0o755)


def _restore_directory(path: Path, trash: Path) -> None:
    """Make *path* a directory. A file or link in its place is removed."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        path.mkdir(mode=0o755)
    else:
        if not stat.S_ISDIR(found.st_mode):
            path.rename(trash / f".gone-{secrets.token_hex(8)}")
            path.mkdir(mode=0o755)
    path.chmod(0o755)


def _is_intact(path: str, entry: Entry, *, thorough: bool) -> bool:
    """Return whether *path* is the file that *entry* describes. Restores its mode and its time."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    is_right_kind = stat.S_ISREG(found.st_mode) and found.st_size == entry.size
    looks_right = found.st_mtime_ns == stamp_of(entry.sha256) and stat.S_IMODE(found.st_mode) == _mode_of(entry)
    if is_right_kind and looks_right and not thorough:
        return True
    if not is_right_kind or not _has_hash(Path(path), entry):
        return False
    if not looks_right:
        try:
            Path(path).chmod(_mode_of(entry))
            os.utime(path, ns=(stamp_of(entry.sha256),) * 2)
        except OSError:
            return False
    return True


def _has_hash(path: Path, entry: Entry) -> bool:
    """Return whether the regular file *path* has the content of *entry*."""
    digest = hashlib.sha256()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb", buffering=0) as file:
            if os.fstat(fd).st_size != entry.size or not stat.S_ISREG(os.fstat(fd).st_mode):
                return False
            while piece := file.read(PIECE):
                digest.update(piece)
    except OSError:
        return False
    return digest.hexdigest() == entry.sha256


def _write(path: Path, content: Content, entry: Entry) -> None:
    """Write *content* to *path*. Raises: WrongHash, BadPack: it is damaged; nothing is left behind."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            for piece in content:
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            os.fchmod(fd, _mode_of(entry))
        os.utime(path, ns=(stamp_of(entry.sha256),) * 2)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _link(source: Path, target: Path, entry: Entry) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NOT_LINKED:
            raise
        _copy(source, target, entry)
    else:
        if target.lstat().st_mtime_ns != stamp_of(entry.sha256) or stat.S_IMODE(target.lstat().st_mode) != _mode_of(entry):
            target.chmod(_mode_of(entry))
            os.utime(target, ns=(stamp_of(entry.sha256),) * 2)


def _copy(source: Path, target: Path, entry: Entry) -> None:
    with source.open("rb") as file:
        _write(target, iter(lambda: file.read(PIECE), b""), entry)


def _about(path: Path) -> About | None:
    try:
        return files.read(About, path / "about.json")
    except (FileNotFoundError, Damaged):
        return None


def _inodes(path: Path) -> dict[tuple[int, int], int]:
    """Return device, number and bytes on the disk of everything below *path*."""
    found: dict[tuple[int, int], int] = {}
    waiting = [str(path)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    found[status.st_dev, status.st_ino] = status.st_blocks * BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
