"""Writes an archive: a zip file that Python executes. Its files are named by their SHA-256, as those of all trees.

| entry | content |
|---|---|
| `__main__.py` | :mod:`.bootstrap` |
| `archive.json` | `{"format": 1, "version": …, "platforms": {platform: digest of the worker's tree}}` |
| `manifests/<digest>` | the manifest of a tree |
| `blobs/<sha256>` | a file of one tree or of several |
| `install.json` | :mod:`.installer`; only in an installer |

The same trees always make the same bytes. Files of several platforms are stored once: most of the worker's are the same on all.
"""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from airflow_remote_protocol.trees import Tree

FORMAT = 1
SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip file can have."""


class Archive:
    """An archive that is being written. Leaving the context completes the file, or removes it after an error."""

    def __init__(self, path: Path, *, is_secret: bool = False) -> None:
        """*is_secret*: only this user may read the file."""
        self._path = path
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        self._mode = 0o600 if is_secret else 0o755
        self._names: set[str] = set()

    def __enter__(self) -> Archive:
        fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "wb")
        self._file.write(SHEBANG)
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)
        bootstrap = files("airflow_remote_provider.packing.archives").joinpath("bootstrap.py").read_bytes()
        self._write("__main__.py", bootstrap)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._zip.close()
            self._file.close()
            if kind is None:
                self._part.chmod(self._mode)
                self._part.replace(self._path)
        finally:
            self._part.unlink(missing_ok=True)

    def describe(self, version: str, workers: Mapping[str, Tree]) -> None:
        """Note the worker's tree for each platform."""
        self.add_json("archive.json", {"format": FORMAT, "version": version, "platforms": _digests(workers)})

    def add_tree(self, tree: Tree, read: Callable[[str], bytes]) -> None:
        """Add a tree; *read* returns the content with this SHA-256. What is in the archive already is not read."""
        self._write(f"manifests/{tree.digest}", tree.manifest)
        for sha256 in tree.sizes:
            name = f"blobs/{sha256}"
            if name not in self._names:
                self._write(name, read(sha256))

    def add_json(self, name: str, value: Any) -> None:
        self._write(name, json.dumps(value, indent=1, sort_keys=True).encode())

    def _write(self, name: str, content: bytes) -> None:
        if name not in self._names:
            self._names.add(name)
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            self._zip.writestr(entry, content, zipfile.ZIP_DEFLATED)


def _digests(trees: Mapping[str, Tree]) -> dict[str, str]:
    return {platform: tree.digest for platform, tree in trees.items()}
