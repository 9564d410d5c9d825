"""The site's own copy of a Dag bundle: where it is, and whether its Dag file is the one that central parsed."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from airflow_remote_worker.config import Config


class CodeMissing(Exception):
    """The bundle or the Dag file is not on this machine; the text names it and the remedy."""


@dataclass(frozen=True)
class LocalCode:
    """The code of a job on this machine."""

    path: str = ""
    """Where its bundle is; empty for a kind that needs none."""
    differs_as: str = ""
    """MD5 of its Dag file, where it is not the one that central parsed."""
    note: str = ""
    """What people should know about that."""


def find(name: str, dag_rel_path: str, code_hash: str, *, config: Config, worker_name: str) -> LocalCode:
    """Return the code of the Dag file *dag_rel_path* of the bundle *name*.

    *code_hash* is the MD5 of the file that central parsed; empty: unknown. Blocks, for as long as the disk takes.

    Raises:
        CodeMissing: the bundle or the file is not on this machine.
    """
    bundle = config.bundles.get(name)
    if bundle is None:
        known = ", ".join(sorted(config.bundles)) or "none"
        remedy = f"set bundles.{name}.path in its settings to the directory with that bundle's Dags"
        raise CodeMissing(f"the worker {worker_name} has no bundle {name!r} (it has: {known}); {remedy}")
    if not _is_there(bundle.path / dag_rel_path):
        what = f"{bundle.path}" if not bundle.path.is_dir() else f"{bundle.path / dag_rel_path}"
        remedy = "bring it there, or correct bundles." + name + ".path"
        raise CodeMissing(f"{what} does not exist on worker {worker_name} (bundle {name!r}); {remedy}")
    path = str(bundle.path.absolute())
    if not code_hash:
        return LocalCode(path)
    theirs, ours = code_hash, hash_of(bundle.path / dag_rel_path)
    if ours in ("", theirs):
        return LocalCode(path)
    note = (
        f"The Dag file {dag_rel_path} of bundle {name!r} on worker {worker_name} (version {ours[:8]}) is not the "
        f"one that central parsed (version {theirs[:8]}): bring the newer one to the other side. The worker's is what runs here"
    )
    return LocalCode(path, ours, note)


LONGEST_FILE = 16 * 1024 * 1024
"""Of Dag files that are compared, in bytes."""


def hash_of(file: Path) -> str:
    """Return the MD5 of a Dag file's text, as Airflow keeps it; empty if it can't be read, or is no text."""
    try:
        if (archive := archive_of(file)) is not None:
            with zipfile.ZipFile(archive) as packed:
                member = packed.getinfo(file.relative_to(archive).as_posix())
                content = packed.read(member) if member.file_size <= LONGEST_FILE else b"\xff"
        elif file.stat().st_size > LONGEST_FILE:
            return ""
        else:
            content = file.read_bytes()
        text = content.decode()
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile):
        return ""  # a damaged archive raises any of them
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _is_there(file: Path) -> bool:
    """Say whether a Dag file is there, also one that is in a zip archive (`…/dags.zip/dag.py`)."""
    if file.exists():
        return True
    if (archive := archive_of(file)) is None:
        return False
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.getinfo(file.relative_to(archive).as_posix())
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile):
        return False
    return True


def archive_of(file: Path) -> Path | None:
    """Return the zip archive that a Dag file is in; None for an ordinary file."""
    return next((place for place in file.parents if place.suffix.lower() == ".zip" and place.is_file()), None)
