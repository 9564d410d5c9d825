"""Files of the state directory: written atomically, sealed with a checksum, and stored twice if nothing could restore them.

Damaged files are moved to the quarantine, where an operator can look at them.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from airflow_remote_worker import system
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.local.seal import Broken, sealed, unsealed

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)


def write(path: Path, body: bytes, *, durable: bool = False) -> None:
    """Replace the content of *path* atomically, with mode 0600. *durable*: it survives a power cut."""
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
        system.sync_directory(path.parent)


def read(kind: type[T], path: Path) -> T:
    """Return the *kind* stored in *path*.

    Raises:
        FileNotFoundError: the file does not exist.
        Damaged: it holds something else, or can't be read.
    """
    try:
        return msgspec.json.decode(unsealed(path.read_bytes()), type=kind)
    except FileNotFoundError:
        raise
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError, Broken) as error:
        raise Damaged(f"{path} is damaged ({error})") from None
    except OSError as error:
        raise Damaged(f"{path} can't be read ({error.strerror})") from None


def store(path: Path, message: msgspec.Struct, *, durable: bool = False) -> None:
    """Store *message* in *path* atomically, with a checksum."""
    write(path, sealed(msgspec.json.encode(message)), durable=durable)


def copy_of(path: Path) -> Path:
    """Return the path of the second copy of *path*."""
    return path.with_name(path.name + ".copy")


def write_twice(path: Path, message: msgspec.Struct, *, durable: bool = False) -> None:
    """Store *message* in *path* and in its copy, so that one of them stays intact if the other is damaged."""
    for place in (path, copy_of(path)):
        store(place, message, durable=durable)


def read_twice(kind: type[T], path: Path, put_aside: Callable[[Path], object]) -> T:
    """Return the *kind* stored in *path*, or in its copy if *path* is damaged. Damaged files are passed to *put_aside*.

    Raises:
        FileNotFoundError: *path* was never stored. (A copy alone does not count: it is written second and removed with *path*.)
        Damaged: neither can be used.
    """
    try:
        return read(kind, path)
    except Damaged as error:
        damage = error
    try:
        content = read(kind, copy_of(path))
    except FileNotFoundError:
        put_aside(path)
        raise damage from None
    except Damaged:
        for damaged in (path, copy_of(path)):
            put_aside(damaged)
        raise Damaged(f"{damage}, and so is its copy") from None
    log.warning("%s; its copy is intact and is used; the damaged file was moved to the quarantine", damage)
    put_aside(path)
    try:
        store(path, content)
    except OSError as error:
        log.error("%s can't be restored from its copy: %s", path, error)
    return content


def put_aside(path: Path, *, quarantine: Path) -> Path | None:
    """Move a damaged file to the quarantine; return its new path, None if it can't be moved."""
    # The name of a job's file includes the job; the time keeps earlier files of the same name.
    name = path.name if path.parent == quarantine.parent else f"{path.parent.name}.{path.name}"
    target = quarantine / f"{name}.{time.time_ns()}"
    try:
        quarantine.mkdir(mode=0o700, exist_ok=True)
        return path.rename(target)
    except OSError as error:
        log.error("%s is damaged and can't be moved to the quarantine: %s", path, error)
        return None
