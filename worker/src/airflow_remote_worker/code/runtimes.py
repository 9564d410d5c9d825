"""Environments of the runtimes that central sends: the only module that writes below `<code>/runtimes`. Every method blocks.

| path | content |
|---|---|
| `<tree>/venv/` | an environment without pip, whose packages are those of the tree, by a `.pth` file |
| `<tree>/ready.json` | :class:`Ready`; a directory without it is removed, and the environment is made again |
| `.gone-…` | an environment that is being removed |

The name of a directory is the digest of the runtime's tree (:mod:`.trees`). The tree itself is never changed, but for bytecode.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec
import psutil
from airflow_remote_protocol.trees import DIGEST

from airflow_remote_worker import system
from airflow_remote_worker.code.interpreter import Interpreter
from airflow_remote_worker.code.venvs import make_programs, make_venv
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.state import files

COMPILE_WITHIN_S = 3600.0
"""At the lowest priority, on a small and busy board. Without bytecode, jobs start more slowly but run."""
LOOK_EVERY_S = 0.1
COMPILE = "import compileall, os, sys; os.umask(0o022); compileall.compile_dir(sys.argv[1], quiet=2, workers=1)"


class CannotMake(Exception):
    """No environment can be made of this tree; the text says why."""


class Settings(msgspec.Struct, frozen=True):
    """`runtime.json` of a tree: what central says about the runtime. It has more fields, for central."""

    format: int = 0
    python: str = ""
    """The minor version of Python that it was built for."""
    env: dict[str, str] = {}
    """Environment variables of its tasks."""


class Ready(msgspec.Struct, frozen=True):
    """`ready.json`: an environment that is complete."""

    python: str
    """The interpreter that it was made from."""
    minor: str
    boot: str
    """The boot in which it was made. Files that were written just before a power cut may be lost."""
    root: str = ""
    """The directory of all environments: one that was moved names its old place."""
    compiled: bool = False
    """Whether its bytecode was made."""
    passed: bool = False
    """Whether it has passed its canary; the versions below are known then."""
    airflow: str = ""
    task_sdk: str = ""
    version: str = ""
    """Of Python."""


class Environments:
    """The environments of this worker, in the directory *root*, made from *base*."""

    def __init__(self, root: Path, base: Interpreter, *, boot: str | None = None) -> None:
        self.base = base
        self._root = root
        self._boot = system.boot_id() if boot is None else boot

    def prepare(self) -> None:
        """Create the directory, and remove what an interrupted daemon has left."""
        self._root.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._root.chmod(0o755)
        for path in self._root.iterdir():
            if not DIGEST.match(path.name) or not (path / "ready.json").exists():
                _remove(path)

    def python_of(self, digest: str) -> Path:
        """Return the path of the environment's interpreter."""
        return self._path(digest) / "venv" / "bin" / "python"

    def ready(self, digest: str) -> Ready | None:
        """Return what is known about a complete environment; None: it isn't here, or is not of this boot or interpreter."""
        try:
            found = files.read(Ready, self._path(digest) / "ready.json")
        except (FileNotFoundError, Damaged):
            return None
        now = (str(self.base.python), self.base.minor, self._boot, str(self._root))
        is_current = (found.python, found.minor, found.boot, found.root) == now
        return found if is_current and self.python_of(digest).exists() else None

    def make(self, digest: str, tree: Path) -> Ready:
        """Make the environment of the runtime whose files are in *tree*. One that is incomplete or outdated is replaced.

        Raises:
            CannotMake: it is not a runtime for this interpreter.
            OSError: the disk is full or fails; nothing is left behind.
        """
        if self.base.trouble:
            raise CannotMake(self.base.trouble)
        settings = settings_of(tree)
        if settings.python and settings.python != self.base.minor:
            raise CannotMake(f"it was built for Python {settings.python}, and {self.base.python} is Python {self.base.minor}")
        path = self._path(digest)
        _set_aside(path)
        try:
            make_venv(path / "venv", tree / "site-packages", self.base)
            make_programs(path / "venv", tree / "site-packages")
            _open_to_all(path)
            ready = Ready(str(self.base.python), self.base.minor, self._boot, str(self._root))
            files.store(path / "ready.json", ready)
        except BaseException:
            _remove(path)
            raise
        return ready

    def compile(self, digest: str, tree: Path, *, stop: Callable[[], bool] = lambda: False) -> bool:
        """Make the bytecode of all files in *tree* at the lowest priority; return whether that succeeded.

        It ends early once *stop* returns true. Files whose bytecode is here are skipped.
        """
        ready = self.ready(digest)
        if ready is None or ready.compiled:
            return ready is not None
        argv = [str(self.python_of(digest)), "-I", "-S", "-c", COMPILE, str(tree)]
        env = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT")}
        try:
            process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError:
            return False
        _lower_priority(process.pid)
        until = time.monotonic() + COMPILE_WITHIN_S
        while (code := process.poll()) is None:
            if stop() or time.monotonic() > until:
                process.kill()
                process.wait()
                return False
            time.sleep(LOOK_EVERY_S)
        if code == 0:
            self._store(digest, msgspec.structs.replace(ready, compiled=True))
        return code == 0

    def note_passed(self, digest: str, *, airflow: str, task_sdk: str, version: str) -> None:
        """Note that the runtime has passed its canary, with the versions that it found."""
        ready = self.ready(digest)
        if ready is not None:
            passed = msgspec.structs.replace(ready, passed=True, airflow=airflow, task_sdk=task_sdk, version=version)
            if passed != ready:
                self._store(digest, passed)

    def note_failed(self, digest: str) -> None:
        """Note that the runtime has not passed its canary."""
        ready = self.ready(digest)
        if ready is not None and ready.passed:
            self._store(digest, msgspec.structs.replace(ready, passed=False))

    def prune(self, trees: Collection[str]) -> None:
        """Remove the environments of all trees but *trees*."""
        with contextlib.suppress(FileNotFoundError):
            for path in self._root.iterdir():
                if path.name not in trees:
                    _set_aside(path)

    def _store(self, digest: str, ready: Ready) -> None:
        with contextlib.suppress(OSError):  # the disk is full: it is found out again by the next start
            files.store(self._path(digest) / "ready.json", ready)

    def _path(self, digest: str) -> Path:
        if not DIGEST.match(digest):
            raise ValueError(f"{digest[:80]!r} is not the digest of a tree")
        return self._root / digest


def settings_of(tree: Path) -> Settings:
    """Return the content of `runtime.json`.

    Raises:
        CannotMake: it is missing, or this worker can't read it.
    """
    try:
        found = msgspec.json.decode((tree / "runtime.json").read_bytes(), type=Settings)
    except (OSError, msgspec.MsgspecError) as error:
        raise CannotMake(f"what central sent is no runtime: its runtime.json can't be read ({error}); build it again") from None
    if found.format != 1:
        raise CannotMake(f"its format is {found.format}, and this worker knows format 1 only; update the worker")
    return found


def environment_of(tree: Path, site: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the runtime's tasks, for the *site*'s settings in `runtime.env`, which win.

    Raises:
        CannotMake: see :func:`settings_of`.
    """
    plugins = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(tree / "plugins")} if (tree / "plugins").is_dir() else {}
    env = {**plugins, **settings_of(tree).env, **site}
    if (tree / "config").is_dir():
        env["PYTHONPATH"] = os.pathsep.join(part for part in (env.get("PYTHONPATH", ""), str(tree / "config")) if part)
    return env


def _open_to_all(path: Path) -> None:
    """Let other users, as which tasks run, read everything below *path*, and start its programs, whatever the daemon's umask."""
    path.chmod(0o755)
    for file in path.rglob("*"):
        if not file.is_symlink():
            file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def _lower_priority(pid: int) -> None:
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        process.nice(19)
        if sys.platform == "linux":
            process.ionice(psutil.IOPRIO_CLASS_IDLE)


def _set_aside(path: Path) -> None:
    """Remove *path*, first under its name: what uses it later must not find a part of it."""
    if os.path.lexists(path):
        gone = path.with_name(f".gone-{secrets.token_hex(8)}")
        path.rename(gone)
        _remove(gone)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
