"""Runtimes from central for tests: trees of one small file each, built by the ledger's own functions."""

from __future__ import annotations

import uuid

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import runtimes, trees
from airflow_remote_provider.ledger.runtimes import Built, Recipe

from testkit import code

LINUX, WINDOWS = "cp311-linux-gnu-x86_64", "cp312-windows-x86_64"


def stored_tree(content: str, *, with_blobs: bool = True, kind: str = trees.RUNTIME) -> str:
    """Begin the tree of a runtime, or of another *kind*, with one file of this content, store its blob, and return its digest."""
    files = {"runtime.json": content.encode()}
    with compat.transaction() as session:
        trees.begin_tree(session, code.tree_of(files), kind, "tests")
        if with_blobs:
            code.store(session, files, kind=kind)
    return code.tree_of(files).digest


def build(name: str = "default", *platforms: str) -> int:
    """Build the runtime for these platforms (Linux if none is named), each with another tree; return the serial."""
    platforms = platforms or (LINUX,)
    built = [Built(platform, stored_tree(f"{name} {uuid.uuid4()}")) for platform in platforms]
    with compat.transaction() as session:
        return runtimes.add(session, name, Recipe(platforms=platforms), built, built_with={}, by="tests")


def edition(name: str, serial: int, platform: str = LINUX) -> str:
    """Return the digest of an edition's tree."""
    with compat.transaction() as session:
        record = runtimes.get(session, name)
    assert record is not None, f"no runtime {name}"
    return record.platforms_of(serial)[platform].tree
