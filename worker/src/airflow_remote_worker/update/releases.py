"""Releases on this machine: the only module that writes below `<state>/releases`. Every method blocks.

| path | content |
|---|---|
| `<tree>/venv/` | an environment without pip, whose packages are those of the release's tree |
| `release.json` | :class:`~.record.Record`, stored twice |
| `lock` | held while a release is on trial |
| `.gone-…` | an environment that is being removed |

The files of a release are a tree like any other, in `<code>/trees`. The release that the site has installed is not here, and is
never changed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec
from airflow_remote_protocol.trees import DIGEST

from airflow_remote_worker import system
from airflow_remote_worker.code.interpreter import Interpreter
from airflow_remote_worker.code.runtimes import CannotMake
from airflow_remote_worker.code.trees import TreeStore
from airflow_remote_worker.code.venvs import make_venv, texts_of
from airflow_remote_worker.config import Config
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.state import files
from airflow_remote_worker.state.directory import State, StateInUse
from airflow_remote_worker.update.record import Record

log = logging.getLogger(__name__)

PROGRAM = ("-I", "-m", "airflow_remote_worker")
"""Isolated: a PYTHONPATH of the site is meant for the release that the site has installed, and would hide this one."""
OWN_PYTHON = re.compile(r"/releases/([0-9a-f]{64})/venv/bin/python\Z")


class About(msgspec.Struct, frozen=True):
    """`release.json` of a tree: what central says about the release."""

    format: int = 0
    version: str = ""
    python: str = ""
    """The minor version of Python that it was built for."""


def running_tree() -> str:
    """Return the tree of the release that this process runs; empty: the one that the site has installed."""
    found = OWN_PYTHON.search(sys.executable)
    return found[1] if found else ""


class Releases:
    """The releases of the worker with this state directory, made from the interpreter *base*."""

    def __init__(self, config: Config, state: State, base: Interpreter) -> None:
        self._root = state.releases.absolute()
        self._store = TreeStore(config.code_path / "trees")
        self._put_aside = state.put_aside
        self._base = base

    # The record

    def load(self) -> Record:
        """Return what is known; nothing, if the file and its copy are damaged: the installed release runs then."""
        try:
            return files.read_twice(Record, self._root / "release.json", self._put_aside)
        except FileNotFoundError:
            return Record()
        except Damaged as error:
            log.error("%s; the release that the site has installed runs, and central's is installed again", error)
            return Record()

    def store(self, record: Record) -> Record:
        """Store *record* so that it survives a power cut, and return it. Raises: OSError."""
        self._root.mkdir(mode=0o700, exist_ok=True)
        files.write_twice(self._root / "release.json", record, durable=True)
        return record

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Raises: StateInUse: another process tries a release."""
        fd = system.lock(self._root / "lock")
        if fd is None:
            raise StateInUse(f"another worker process tries a new release in {self._root.parent}; wait until it has ended")
        try:
            yield
        finally:
            os.close(fd)

    # Environments

    def command(self, tree: str, arguments: Collection[str]) -> list[str]:
        """Return the command line of a release's program."""
        return [str(self._python_of(tree)), *PROGRAM, *arguments]

    def make(self, tree: str) -> None:
        """Make the environment of a release whose tree is here, if it isn't here already.

        Raises:
            CannotMake: it is not a release for this interpreter.
            OSError: the disk is full or fails.
        """
        if self._base.trouble:
            raise CannotMake(self._base.trouble)
        about = self._about(tree)
        if about.python and about.python != self._base.minor:
            raise CannotMake(f"it was built for Python {about.python}, and {self._base.python} is Python {self._base.minor}")
        if not self._is_made(tree):
            path = self._path(tree)
            self._remove(path)
            path.mkdir(mode=0o700, parents=True)
            make_venv(path / "venv", self._packages(tree), self._base)

    def trouble_of(self, tree: str) -> str:
        """Return why a release can't be started; empty: it can. Its files are compared with its tree."""
        found = self._store.load(tree)
        if found is None:
            return "its files are not on this machine any more"
        try:
            if damaged := self._store.check(found):
                return f"{len(damaged)} of its files were changed or removed on this machine ({damaged[0].path}, …)"
        except OSError as error:
            return f"its files can't be read ({error.strerror})"
        if not self._is_made(tree) or not os.access(self._python_of(tree), os.X_OK):
            return f"its environment {self._path(tree)} is damaged, or the interpreter that it was made from is gone"
        return ""

    def prune(self, trees: Collection[str]) -> None:
        """Remove the environments of all releases but *trees*."""
        with contextlib.suppress(FileNotFoundError):
            for path in self._root.iterdir():
                if path.name.startswith(".gone-") or (DIGEST.match(path.name) and path.name not in trees):
                    self._remove(path)

    def _about(self, tree: str) -> About:
        """Raises: CannotMake."""
        try:
            about = msgspec.json.decode((self._store.files_of(tree) / "release.json").read_bytes(), type=About)
        except (OSError, msgspec.MsgspecError) as error:
            raise CannotMake(f"what central sent is no release: its release.json can't be read ({error}); add it again") from None
        if about.format != 1:
            raise CannotMake(f"its format is {about.format}, and this worker knows format 1 only; update it by hand")
        return about

    def _is_made(self, tree: str) -> bool:
        """Return whether the environment is complete: files that were written just before a power cut may be lost."""
        try:
            found = texts_of(self._path(tree) / "venv", self._packages(tree), self._base)
            return self._python_of(tree).exists() and all(path.read_text() == text for path, text in found.items())
        except (OSError, UnicodeDecodeError):
            return False

    def _packages(self, tree: str) -> Path:
        return self._store.files_of(tree) / "site-packages"

    def _python_of(self, tree: str) -> Path:
        return self._path(tree) / "venv" / "bin" / "python"

    def _path(self, tree: str) -> Path:
        if not DIGEST.match(tree):
            raise ValueError(f"{tree[:80]!r} is not the digest of a tree")
        return self._root / tree

    def _remove(self, path: Path) -> None:
        if path.exists():
            gone = self._root / f".gone-{secrets.token_hex(8)}"
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
