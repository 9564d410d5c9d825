"""Finds a job's Dag file in the site's own copy of the bundle, and compares it with the file that central parsed.

Code that central sends is in :mod:`.bundles`.
"""

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
    """The directory of its bundle; empty for a kind of job without a bundle."""
    differs_as: str = ""
    """MD5 of its Dag file if it differs from the one that central parsed."""
    note: str = ""
    """A note for users about that difference, or about central's choice of the tree."""
    tree: str = ""
    """The tree that it is; empty: the site's own directory."""
    source: str = ""
    """Where it comes from, for the first line of the task's log; empty: the site's directory, and central sent nothing."""


def find(name: str, *, dag_rel_path: str, code_hash: str, config: Config, worker_name: str) -> LocalCode:
    """Return the code of the Dag file *dag_rel_path* of the bundle *name*.

    *code_hash* is the MD5 of the file that central parsed; empty: unknown. Blocks as long as the disk needs.

    Raises:
        CodeMissing: the bundle or the file is not on this machine.
    """
    bundle = config.bundles.get(name)
    if bundle is None:
        known = ", ".join(sorted(config.bundles)) or "none"
        remedy = (
            f"publish it on central (`airflow remote publish {name}`), or set bundles.{name}.path in the worker's settings to a "
            "directory with that bundle's Dags"
        )
        raise CodeMissing(f"the worker {worker_name} has no bundle {name!r} (it has: {known}), and central sent none; {remedy}")
    if not exists(bundle.path / dag_rel_path):
        what = f"{bundle.path}" if not bundle.path.is_dir() else f"{bundle.path / dag_rel_path}"
        remedy = "copy it there, or correct bundles." + name + ".path"
        raise CodeMissing(f"{what} does not exist on worker {worker_name} (bundle {name!r}); {remedy}")
    path = str(bundle.path.absolute())
    if not code_hash:
        return LocalCode(path)
    theirs, ours = code_hash, hash_of(bundle.path / dag_rel_path)
    if ours in ("", theirs):
        return LocalCode(path)
    note = (
        f"The Dag file {dag_rel_path} of bundle {name!r} on worker {worker_name} (version {ours[:8]}) is not the "
        f"one that central parsed (version {theirs[:8]}): copy the newer one to the other side. The worker's version runs here"
    )
    return LocalCode(path, ours, note)


LONGEST_FILE = 16 * 1024 * 1024
"""In bytes. Longer Dag files are not compared."""


def hash_of(file: Path) -> str:
    """Return the MD5 of a Dag file's text, computed as Airflow does; empty if it can't be read, or is not text."""
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
        return ""  # a damaged archive can raise any of these
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def exists(file: Path) -> bool:
    """Return whether a Dag file exists, also inside a zip archive (`…/dags.zip/dag.py`)."""
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
    """Return the zip archive that contains a Dag file; None for an ordinary file."""
    return next((place for place in file.parents if place.suffix.lower() == ".zip" and place.is_file()), None)
