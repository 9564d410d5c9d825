"""The state directory: who this worker is, and that only one daemon lives in it.

Owns the directory's shape and modes. Jobs within it belong to :mod:`.spool`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from airflow_remote_worker import posix
from airflow_remote_worker.errors import Damaged

T = TypeVar("T", bound=msgspec.Struct)

LONGEST_SOCKET_PATH = 100
"""`sockaddr_un.sun_path` has 108 bytes on Linux, 104 on macOS."""


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """`credential.json`: what `join` brought home, and by which way. The only secret of the worker."""

    central: str
    worker_id: str
    name: str
    credential: str
    insecure_http: bool = False
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    proxy_auth_file: str | None = None


class NotJoined(Exception):
    """This directory belongs to no central yet."""


class StateInUse(Exception):
    """Another daemon lives in this directory."""


class State:
    """The directory at *root*; made on first use, readable by its owner alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self.quarantine = root / "quarantine"
        self.airflow_home = root / "airflow-home"
        self.status_path = root / "status.json"
        self.contact_path = root / "contact"
        self.zygote_log = root / "zygote.log"
        self._credential = root / "credential.json"
        self._instance = root / "instance"

    def prepare(self) -> None:
        """Make the directories that are missing."""
        for directory in (self.root, self.jobs, self.airflow_home):
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
        fd = posix.lock(self.root / "lock")
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
        fd = posix.lock(self.root / "lock")
        if fd is None:
            return True
        os.close(fd)
        return False

    def membership(self) -> Membership:
        """Return what `join` stored.

        Raises:
            NotJoined: nothing yet.
            Damaged: the file is not what we wrote.
        """
        try:
            return read(Membership, self._credential)
        except FileNotFoundError:
            raise NotJoined(
                f"{self.root} has joined no central; run: airflow-remote-worker join <central's URL> --token <enrolment token>"
            ) from None

    def join(self, membership: Membership) -> None:
        """Store the credential; only the owner can read it at any moment of its life."""
        self.prepare()
        write(self._credential, msgspec.json.encode(membership), durable=True)

    def forget(self) -> None:
        """Remove the credential."""
        self._credential.unlink(missing_ok=True)

    def instance_id(self) -> str:
        """Return what stays the same over restarts here and differs on a copy of this directory on another machine."""
        try:
            seed = self._instance.read_text().strip()
        except FileNotFoundError:
            seed = secrets.token_hex(16)
            write(self._instance, seed.encode(), durable=True)
        return hashlib.sha256(f"{seed}:{posix.machine_id()}".encode()).hexdigest()[:32]

    def socket_path(self) -> Path:
        """Return where the gateway listens: in here, or where the path would be too long, in a private short directory."""
        inside = self.root / "gateway.sock"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
            return inside
        # The same over restarts: shims that outlive the daemon must find the next one.
        digest = hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:16]
        outside = Path(tempfile.gettempdir()) / f"arw-{posix.user_id()}-{digest}"
        outside.mkdir(mode=0o700, exist_ok=True)
        if not posix.is_private(outside):
            raise Damaged(f"{outside} belongs to someone else or is open to others; remove it, or use a shorter --state path")
        return outside / "gateway.sock"


def write(path: Path, body: bytes, *, durable: bool = False) -> None:
    """Replace *path* by *body* in one step, created with mode 0600; *durable*: also after a power cut."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(body)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        posix.sync_directory(path.parent)


def read(kind: type[T], path: Path) -> T:
    """Return the *kind* in *path*.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it holds something else.
    """
    body = path.read_bytes()
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Damaged(f"{path} is damaged ({error}); move it away and start again") from None
