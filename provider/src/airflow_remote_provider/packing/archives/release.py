"""Makes the worker's part of an archive: the tree of a release for one platform, and what reads its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from airflow_remote_protocol.platforms import Platform
from airflow_remote_protocol.trees import Tree

from airflow_remote_provider.packing.releases import make_tree, with_wheels
from airflow_remote_provider.packing.scan import Limits, read_file

LIMITS = Limits(20_000, 512 << 20, 64 << 20)
"""A worker has some 700 files and 6 MB."""


def make_worker(
    platform: Platform,
    version: str,
    work: Path,
    *,
    wheels: Path | None = None,
    environ: Mapping[str, str] | None = None,
    constraints: Sequence[str] = (),
) -> tuple[Tree, Callable[[str], bytes]]:
    """Make the worker's tree in the empty directory *work*; return it, with what reads its files by their SHA-256.

    *wheels* is a directory with wheels beside those of the package index.

    Raises:
        CannotBuild: a package can't be had for this platform, or its files can't travel.
    """
    given = os.environ if environ is None else environ
    found = given if wheels is None else with_wheels(given, wheels)
    tree, state = make_tree(version, platform, work, environ=found, limits=LIMITS, constraints=constraints)
    paths = {entry.sha256: entry.path for entry in tree.entries}
    return tree, lambda sha256: read_file(paths[sha256], state.seen[paths[sha256]])
