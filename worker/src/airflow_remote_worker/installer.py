"""`install`: makes a machine that reaches only central a worker, from one file that `airflow remote installer` made.

The file is a zip archive with the worker itself (unpacked before this runs), `install.json` (:class:`Contents`), and the tree
of a runtime: `manifests/<digest>` and `blobs/<sha256>`. Every step can be repeated: after an interruption, run it again.
Nothing in the file is executed but the worker; the runtime's tree is verified like one that central sends.
"""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from airflow_remote_protocol.packs import WrongHash
from airflow_remote_protocol.trees import BadTree, Tree

from airflow_remote_worker import system
from airflow_remote_worker.code.interpreter import find
from airflow_remote_worker.code.trees import Content, TreeStore
from airflow_remote_worker.config import ENV_PREFIX, FILE_NAME, Config, ConfigError, load, write_settings
from airflow_remote_worker.errors import WorkerError
from airflow_remote_worker.state.directory import Membership, NotJoined, State
from airflow_remote_worker.system import unpacked

FORMAT = 1
TOKEN = ENV_PREFIX + "TOKEN"
SYSTEM_STATE = Path("/var/lib/airflow-remote-worker")
"""Where root installs, unless `--state` names another directory."""
CA_FILE = "central-ca.pem"
PIECE = 256 << 10
MOST_DESCRIBED = 1 << 20
"""Bytes of `install.json`."""
MORE_ROOM = 64 << 20
"""Beside the runtime's files: the worker itself, and bytecode."""


class Runtime(msgspec.Struct, frozen=True):
    """The runtime in the file: a tree for each platform."""

    name: str
    serial: int
    platforms: dict[str, str]


class Contents(msgspec.Struct, frozen=True):
    """`install.json`."""

    format: int
    central: str
    token: str
    """For one join; it expires."""
    expires_at: float
    """Seconds since 1970."""
    name: str = ""
    """Of the worker; empty: the host's name."""
    insecure_http: bool = False
    settings: dict[str, Any] = {}
    """Of `worker.toml`."""
    ca: str = ""
    """PEM of the authorities that central's certificate is from; empty: the system's."""
    trust: dict[str, str] = {}
    """Public keys that the worker trusts: names of files, and their content."""
    runtime: Runtime | None = None


class Installer:
    """Installs one archive into a state directory. *run* runs a command of the worker and returns its exit code."""

    def __init__(self, path: Path, state: State, *, run: Callable[[Sequence[str]], int]) -> None:
        self._path = path
        self._state = state
        self._run = run

    def install(self, *, name: str, user_name: str | None, with_service: bool) -> int:
        """Install everything; return the exit code.

        Raises:
            ConfigError, WorkerError: this can't be installed here; the text says why.
            OSError: the disk fails.
        """
        is_root = system.user_id() == 0
        if with_service and is_root and user_name is None:
            raise ConfigError(
                "--user-name: you are root; name the existing user that the worker and its tasks run as (root, if you mean it), "
                "or leave the service out with --no-service"
            )
        if user_name is not None and not is_root:
            raise ConfigError("--user-name: only root can install for another user; omit it")
        if user_name is not None and not system.is_user(user_name):
            raise ConfigError(f"--user-name: there is no user {user_name!r} on this machine; create it, or name another")
        try:
            archive = zipfile.ZipFile(self._path)
        except (OSError, zipfile.BadZipFile) as error:
            raise ConfigError(f"--archive: {self._path} can't be read ({error}); copy it again") from None
        with archive:
            contents = self._read(archive)
            joined = self._membership()
            if joined is not None and joined.central != contents.central.rstrip("/"):
                raise ConfigError(
                    f"{self._state.root} is already worker {joined.name} of {joined.central}; name another directory: --state"
                )
            if joined is None and contents.expires_at < time.time():
                when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(contents.expires_at))
                raise ConfigError(f"the token in {self._path} has expired ({when}); make a new installer on central")
            self._write_settings(contents)
            config = load({"state": str(self._state.root)})
            if contents.runtime is not None:
                self._store_runtime(archive, contents.runtime, config)
        if joined is None:
            code = self._join(contents, name or contents.name)
            if code:
                return code
        return self._finish(user_name, with_service=with_service)

    def _read(self, archive: zipfile.ZipFile) -> Contents:
        try:
            entry = archive.getinfo("install.json")
            if entry.file_size > MOST_DESCRIBED:
                raise ConfigError(f"{self._path} is no installer: its install.json is too large")
            contents = msgspec.json.decode(archive.read(entry), type=Contents)
        except KeyError:
            raise ConfigError(
                f"{self._path} has a worker and no installation; use join, run and service with it, or make an "
                "installer on central: airflow remote installer"
            ) from None
        except (msgspec.MsgspecError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{self._path} is damaged ({error}); copy it again") from None
        if contents.format != FORMAT:
            raise ConfigError(f"{self._path} has the format {contents.format}, and this worker knows {FORMAT}; make it again")
        return contents

    def _membership(self) -> Membership | None:
        try:
            return self._state.membership()
        except NotJoined:
            return None

    def _write_settings(self, contents: Contents) -> None:
        """Write `worker.toml` and the files that it names, unless they are here."""
        self._state.prepare()
        settings = {"central": contents.central, **contents.settings}
        if contents.insecure_http:
            settings["insecure_http"] = True
        if contents.ca:
            ca = self._state.root / CA_FILE
            ca.write_text(contents.ca, encoding="utf-8")
            settings["ca_file"] = str(ca)
        if not (self._state.root / FILE_NAME).exists():
            write_settings(self._state.root, settings)
            print(f"wrote {self._state.root / FILE_NAME}")

    def _store_runtime(self, archive: zipfile.ZipFile, runtime: Runtime, config: Config) -> None:
        """Put the runtime's tree where the daemon looks for it before it requests anything."""
        interpreter = find(config)
        digest = runtime.platforms.get(interpreter.platform)
        if digest is None:
            why = interpreter.trouble or f"it is for {', '.join(sorted(runtime.platforms))}, and this is {interpreter.platform}"
            print(f"warning: the runtime in {self._path} is not used: {why}; central sends one, if it has it")
            return
        store = TreeStore(config.code_path / "trees")
        store.prepare()
        if store.has(digest):
            return
        try:
            tree = Tree.parse(archive.read(f"manifests/{digest}"))
            if tree.digest != digest:
                raise BadTree("the list of files has another hash")
            free, _ = system.free_space(self._state.root)
            if free < tree.bytes + MORE_ROOM:
                needed = (tree.bytes + MORE_ROOM) >> 20
                raise ConfigError(f"{config.code_path} has {free >> 20} MB free, and the runtime needs {needed}; make room")
            new = store.make(tree, f"runtime:{runtime.name}", str(runtime.serial))
            try:
                new.add((sha256, _content(archive, sha256)) for sha256 in list(new.missing))
                if new.missing:
                    raise BadTree(f"{len(new.missing)} files have another hash")
                new.complete()
            finally:
                new.discard()
        except (KeyError, BadTree, WrongHash, zipfile.BadZipFile) as error:
            raise WorkerError(f"{self._path} is damaged: its runtime can't be read ({error}); copy it again") from None
        print(f"stored the runtime {runtime.name} {runtime.serial} ({tree.files} files)")

    def _join(self, contents: Contents, name: str) -> int:
        words = ["join", contents.central, "--state", str(self._state.root)]
        words += ["--name", name] if name else []
        words += ["--insecure-http"] if contents.insecure_http else []
        for file, text in sorted(contents.trust.items()):
            path = self._state.root / Path(file).name
            path.write_text(text, encoding="utf-8")
            words += ["--trust", str(path)]
        os.environ[TOKEN] = contents.token  # not an argument: process lists show those
        try:
            return self._run(words)
        finally:
            del os.environ[TOKEN]

    def _finish(self, user_name: str | None, *, with_service: bool) -> int:
        root = self._state.root
        program = unpacked.keep(root) if unpacked.is_unpacked() else None
        if user_name is not None:
            _give(root, user_name)
        if with_service:
            user = ["--user-name", user_name] if user_name is not None else []
            return self._run(["service", "install", "--now", "--state", str(root), *user])
        print(f"installed; run it with:  {program or 'airflow-remote-worker'} run --state {root}")
        return 0


def _content(archive: zipfile.ZipFile, sha256: str) -> Content:
    """Yield a file's content, verified at its end, as :class:`~.code.trees.Filling` needs it."""
    digest = hashlib.sha256()
    for piece in _pieces(archive, sha256):
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise WrongHash(sha256)


def _pieces(archive: zipfile.ZipFile, sha256: str) -> Iterator[bytes]:
    with archive.open(f"blobs/{sha256}") as file:
        while piece := file.read(PIECE):
            yield piece


def _give(root: Path, user_name: str) -> None:
    """Make the directory and all in it *user_name*'s, except the program: the worker must not change that."""
    user = system.find_user(user_name)
    for path in [root, *root.rglob("*")]:
        if root / unpacked.DIRECTORY not in (path, *path.parents):
            os.lchown(path, user.pw_uid, user.pw_gid)
