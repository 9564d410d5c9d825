"""The state directory: who this worker is, and that only one daemon lives in it.

Owns the directory's shape and modes, how its files are written (whole or not at all, sealed with a checksum, and twice what
nobody could tell us again), and where damaged ones go. Jobs within it belong to :mod:`.spool`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
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
    """`credential.json`: what `join` brought home, and by which way. The only secret of the worker."""

    central: str
    worker_id: str
    name: str
    credential: str
    previous: str | None = None
    """The credential before, until central is known to have seen the new one."""
    insecure_http: bool = False
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    proxy_auth_file: str | None = None


class Instance(msgspec.Struct, frozen=True):
    """`instance`: what tells this directory from every other one."""

    seed: str


class Contact(msgspec.Struct, frozen=True):
    """`contact`: when the last good exchange with central began, on the clock that starts with the machine."""

    at: float


class NotJoined(Exception):
    """This directory belongs to no central yet."""


class StateInUse(Exception):
    """Another daemon lives in this directory."""


class State:
    """The directory at *root*; made on first use, readable by its owner alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self.triggers = root / "triggers"
        self.hosts = root / "hosts"
        self.canary = root / "canary"
        self.quarantine = root / "quarantine"
        self.airflow_home = root / "airflow-home"
        self.status_path = root / "status.json"
        self.contact_path = root / "contact"
        self.task_settings_path = root / "task-settings.json"
        self.zygote_log = root / "zygote.log"
        self.worker_log = root / "own-log"
        self._credential = root / "credential.json"
        self._instance = root / "instance"
        self._seed = secrets.token_hex(16)
        """Of a directory that has none yet."""

    def prepare(self) -> None:
        """Make the directories that are missing."""
        for directory in (self.root, self.jobs, self.triggers, self.hosts, self.airflow_home):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.root.stat().st_mode & 0o077:
            self.root.chmod(0o700)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only daemon in this directory; the lock goes with the process, however it ends.

        Raises:
            StateInUse: another one is alive.
        """
        self.prepare()
        fd = system.lock(self.root / "lock")
        if fd is None:
            raise StateInUse(
                f"another worker daemon uses {self.root}; stop it, or give this one a directory of its own (--state)"
            )
        try:
            yield
        finally:
            os.close(fd)

    def is_locked(self) -> bool:
        """Say whether a daemon is alive in this directory."""
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
            NotJoined: nothing yet.
            Damaged: neither the file nor its copy is what we wrote.
            PermissionError: this user may not read it; :func:`explain_unusable` says what to do.
        """
        if self._credential.exists():
            self._credential.open("rb").close()  # what may not be read is not damaged
        try:
            return files.read_twice(Membership, self._credential, self.put_aside)
        except Damaged as error:
            raise Damaged(
                f"{error}; without a credential central can't know this worker: ask for a new enrolment token and join again "
                "with --force (its jobs run on and are adopted)"
            ) from None
        except FileNotFoundError:
            raise NotJoined(
                f"{self.root} has joined no central; run: airflow-remote-worker join <central's URL> (it asks for a token)"
            ) from None

    def join(self, membership: Membership) -> None:
        """Store the credential; only the owner can read it at any moment of its life."""
        self.prepare()
        self._forget_task_settings()
        files.write_twice(self._credential, membership, durable=True)
        self.instance_id()  # now, while there is room for it

    def replace_credential(self, credential: str, *, previous: str | None) -> None:
        """Store the credential that replaces the one here; *previous* is what to go back to.

        Raises:
            OSError: the disk won't take it; the new one must not be used.
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
        """Remove what an earlier central has sent: the next one may have nothing to say about them."""
        for path in (self.task_settings_path, files.copy_of(self.task_settings_path)):
            path.unlink(missing_ok=True)

    def instance_id(self) -> str:
        """Return what stays the same over restarts here and differs on a copy of this directory on another machine."""
        try:
            seed = files.read_twice(Instance, self._instance, self.put_aside).seed
        except (FileNotFoundError, Damaged) as error:
            if isinstance(error, Damaged):
                log.error("%s; central may take this worker for a copy of itself: if it refuses it, join again", error)
            seed = self._seed
            try:
                files.write_twice(self._instance, Instance(seed), durable=True)
            except OSError as error:
                log.error(
                    "%s can't be stored: %s; after a restart central may take this worker for a copy", self._instance, error
                )
        return hashlib.sha256(f"{seed}:{system.machine_id()}".encode()).hexdigest()[:32]

    def store_contact(self, at: float) -> None:
        """Note a good exchange with central: a number for whoever may read it, and its sealed copy for the next daemon.

        Raises:
            OSError: the disk won't take it; the older one stands, which ends jobs too early rather than too late.
        """
        files.write(self.contact_path, repr(at).encode())
        files.store(files.copy_of(self.contact_path), Contact(at))

    def contact(self) -> float | None:
        """Return the last one that was noted; None if there is none that can be read."""
        try:
            return files.read(Contact, files.copy_of(self.contact_path)).at
        except FileNotFoundError:
            pass
        except Damaged as error:
            log.error("%s; it is put aside", error)
            self.put_aside(files.copy_of(self.contact_path))
        try:
            return float(self.contact_path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.error("%s can't be read (%s); the time without central counts from now", self.contact_path, error)
            return None

    def put_aside(self, path: Path) -> Path | None:
        """Move a damaged file out of the way."""
        return files.put_aside(path, self.quarantine)

    def socket_path(self) -> Path:
        """Return where the gateway listens: in here, or where the path would be too long, in a private short directory."""
        inside = self.root / "gateway.sock"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
            return inside
        # The same over restarts: shims that outlive the daemon must find the next one.
        digest = hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:16]
        outside = Path(tempfile.gettempdir()) / f"arw-{system.user_id()}-{digest}"
        outside.mkdir(mode=0o700, exist_ok=True)
        if not system.is_private(outside):
            raise Damaged(f"{outside} belongs to someone else or is open to others; remove it, or use a shorter --state path")
        return outside / "gateway.sock"


UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def explain_unusable(root: Path, error: OSError) -> str | None:
    """Return why this user can't use the state directory *root* and what to do; None: *error* is about something else."""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else root
    if error.errno not in UNUSABLE or not (path == root or root in path.parents or path in root.parents):
        return None
    elsewhere = f"give another directory with --state or ${ENV_PREFIX}HOME"
    what = f"the state directory {root} can't be used ({path}: {error.strerror})"
    if error.errno == errno.EROFS:
        return f"{what}: its file system is read-only; remount it writable, or {elsewhere}"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{what}: a file is in the way; {elsewhere}"
    user, owner = system.user_name(), owner_of(root)
    if owner and owner != user:
        return f"{what}: it belongs to {owner}, and this is {user}; run this as {owner} (runuser -u {owner} -- …), or {elsewhere}"
    return f"{what}: the user {user} may not write there; change its permissions, or {elsewhere}"


def owner_of(root: Path) -> str | None:
    """Return who owns *root*, or what of the way to it exists."""
    for path in (root, *root.parents):
        try:
            return path.owner()
        except (OSError, KeyError, NotImplementedError):
            continue
    return None
