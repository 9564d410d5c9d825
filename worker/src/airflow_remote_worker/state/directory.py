"""The state directory: the worker's identity and credential, and the lock that allows only one daemon.

Owns the directory's layout and modes. How files are written and where damaged ones are moved is in :mod:`.files`, the directories
of jobs in :mod:`.spool`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from airflow_remote_worker import system
from airflow_remote_worker.config import ENV_PREFIX
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.state import files

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

LONGEST_SOCKET_PATH = 100
"""`sockaddr_un.sun_path` has 108 bytes on Linux, 104 on macOS."""


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """`credential.json`: what `join` received, and its network settings. The credential is the worker's only secret."""

    central: str
    worker_id: str
    name: str
    credential: str
    previous: str | None = None
    """The previous credential, until central is known to have seen the new one."""
    ephemeral: bool = False
    insecure_http: bool = False
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    proxy_auth_file: str | None = None


class Instance(msgspec.Struct, frozen=True):
    """`instance`: a random value that is unique to this directory."""

    seed: str


class Contact(msgspec.Struct, frozen=True):
    """`contact`: when the last successful exchange with central began, by :func:`..local.boottime.now`."""

    at: float


class NotJoined(Exception):
    """This directory has not joined a central."""


class StateInUse(Exception):
    """Another daemon runs in this directory."""


class State:
    """The directory at *root*; created on first use, readable only by its owner.

    *is_shared*: other users, as which tasks run, may pass through it to the Dags in `code`. They can't list it, and everything
    else in it stays closed to them.
    """

    def __init__(self, root: Path, *, is_shared: bool = False) -> None:
        self.root = root
        self.code = root / "code"
        self._is_shared = is_shared
        self.jobs = root / "jobs"
        self.triggers = root / "triggers"
        self.hosts = root / "hosts"
        self.canary = root / "canary"
        self.runtimes = root / "runtimes"
        self.releases = root / "releases"
        self.quarantine = root / "quarantine"
        self.airflow_home = root / "airflow-home"
        self.status_path = root / "status.json"
        self.contact_path = root / "contact"
        self.task_settings_path = root / "task-settings.json"
        self.statements = root / "statements"
        self.zygote_log = root / "zygote.log"
        self.worker_log = root / "own-log"
        self._credential = root / "credential.json"
        self._instance = root / "instance"
        self._seed = secrets.token_hex(16)
        """The seed for a directory without `instance`."""

    def prepare(self) -> None:
        """Create missing directories and restrict the root to its owner."""
        for directory in (self.root, self.jobs, self.triggers, self.hosts, self.airflow_home, self.runtimes):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._is_shared:
            self._close_all_but_code()
        mode = 0o711 if self._is_shared else 0o700
        if stat.S_IMODE(self.root.stat().st_mode) & 0o077 != mode & 0o077:
            self.root.chmod(mode)

    def _close_all_but_code(self) -> None:
        """Close every entry to other users, before the directory itself is opened: operators write files like `worker.toml`."""
        for path in self.root.iterdir():
            found = path.lstat()
            if path != self.code and not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o077:
                path.chmod(stat.S_IMODE(found.st_mode) & 0o700)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory against other daemons. The lock ends with the process, however that ends.

        Raises:
            StateInUse: another daemon runs.
        """
        self.prepare()
        fd = system.lock(self.root / "lock")
        if fd is None:
            raise StateInUse(
                f"another worker daemon uses {self.root}; stop it, or start this one with another directory (--state)"
            )
        try:
            yield
        finally:
            os.close(fd)

    def is_locked(self) -> bool:
        """Return whether a daemon runs in this directory."""
        if not self.root.exists():
            return False
        fd = system.lock(self.root / "lock")
        if fd is None:
            return True
        os.close(fd)
        return False

    def membership(self) -> Membership:
        """Return what `join` stored.

        Raises:
            NotJoined: nothing is stored.
            Damaged: the file and its copy are damaged.
            PermissionError: this user can't read it; :func:`explain_unusable` returns the remedy.
        """
        if self._credential.exists():
            self._credential.open("rb").close()  # raises PermissionError: an unreadable file is not damaged
        try:
            return files.read_twice(Membership, self._credential, self.put_aside)
        except Damaged as error:
            raise Damaged(
                f"{error}; without its credential this worker can't connect to central: ask for a new enrolment token and join "
                "again with --force (running jobs go on and are adopted)"
            ) from None
        except FileNotFoundError:
            raise NotJoined(
                f"{self.root} has not joined a central; run: airflow-remote-worker join <central's URL> (it asks for a token)"
            ) from None

    def join(self, membership: Membership) -> None:
        """Store the credential in a file that only its owner can read from the start."""
        self.prepare()
        self._forget_task_settings()
        files.write_twice(self._credential, membership, durable=True)
        self.instance_id()  # stores `instance` now, while the disk has room

    def replace_credential(self, credential: str, *, previous: str | None) -> None:
        """Replace the stored credential. *previous* is the one to fall back to.

        Raises:
            OSError: it can't be stored; the new credential must not be used.
        """
        present = self.membership()
        files.write_twice(
            self._credential, msgspec.structs.replace(present, credential=credential, previous=previous), durable=True
        )

    def forget(self) -> None:
        """Remove the credential."""
        for path in (self._credential, files.copy_of(self._credential)):
            path.unlink(missing_ok=True)
        self._forget_task_settings()

    def _forget_task_settings(self) -> None:
        """Remove the settings of an earlier central: the next one may not send any."""
        for path in (self.task_settings_path, files.copy_of(self.task_settings_path)):
            path.unlink(missing_ok=True)

    def instance_id(self) -> str:
        """Return an id that survives restarts and differs for a copy of this directory on another machine."""
        try:
            seed = files.read_twice(Instance, self._instance, self.put_aside).seed
        except (FileNotFoundError, Damaged) as error:
            if isinstance(error, Damaged):
                log.error("%s; central may treat this worker as a copy of itself: if it refuses the worker, join again", error)
            seed = self._seed
            try:
                files.write_twice(self._instance, Instance(seed), durable=True)
            except OSError as error:
                log.error(
                    "%s can't be stored: %s; after a restart central may treat this worker as a copy of itself",
                    self._instance,
                    error,
                )
        return hashlib.sha256(f"{seed}:{system.machine_id()}".encode()).hexdigest()[:32]

    def store_contact(self, at: float) -> None:
        """Store the time of a successful exchange with central: a number for shims, and a sealed copy for the next daemon.

        Raises:
            OSError: it can't be stored; the older time remains, which ends jobs too early rather than too late.
        """
        files.write(self.contact_path, repr(at).encode())
        files.store(files.copy_of(self.contact_path), Contact(at))

    def contact(self) -> float | None:
        """Return the stored time of the last contact; None if there is nothing readable."""
        try:
            return files.read(Contact, files.copy_of(self.contact_path)).at
        except FileNotFoundError:
            pass
        except Damaged as error:
            log.error("%s; it was moved to the quarantine", error)
            self.put_aside(files.copy_of(self.contact_path))
        try:
            return float(self.contact_path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.error("%s can't be read (%s); the time without central counts from now", self.contact_path, error)
            return None

    def put_aside(self, path: Path) -> Path | None:
        """Move a damaged file to the quarantine; return its new path, None if it can't be moved."""
        return files.put_aside(path, quarantine=self.quarantine)

    def socket_path(self) -> Path:
        """Return the path of the gateway's socket: in this directory or, if that is too long, in a private short one."""
        inside = self.root / "gateway.sock"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
            return inside
        # The path stays the same over restarts, so that running shims find the next daemon.
        digest = hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:16]
        outside = Path(tempfile.gettempdir()) / f"arw-{system.user_id()}-{digest}"
        outside.mkdir(mode=0o700, exist_ok=True)
        if not system.is_private(outside):
            raise Damaged(f"{outside} belongs to another user or is open to others; remove it, or use a shorter --state path")
        return outside / "gateway.sock"


UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def explain_unusable(root: Path, error: OSError) -> str | None:
    """Return why this user can't use the state directory *root*, with the remedy; None if *error* has another cause."""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else root
    if error.errno not in UNUSABLE or not (path == root or root in path.parents or path in root.parents):
        return None
    elsewhere = f"use another directory with --state or ${ENV_PREFIX}HOME"
    what = f"the state directory {root} can't be used ({path}: {error.strerror})"
    if error.errno == errno.EROFS:
        return f"{what}: its file system is read-only; remount it writable, or {elsewhere}"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{what}: a file with that name exists; {elsewhere}"
    user, owner = system.user_name(), owner_of(root)
    if owner and owner != user:
        return f"{what}: it belongs to {owner}, not to {user}; run this as {owner} (runuser -u {owner} -- …), or {elsewhere}"
    return f"{what}: the user {user} can't write there; change its permissions, or {elsewhere}"


def owner_of(root: Path) -> str | None:
    """Return the owner of *root*, or of its nearest parent that exists."""
    for path in (root, *root.parents):
        try:
            return path.owner()
        except (OSError, KeyError, NotImplementedError):
            continue
    return None
