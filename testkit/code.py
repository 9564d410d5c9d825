"""Publishes code for tests as a publisher does, with the store in the database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from airflow_remote_protocol.packs import encode_blob
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import bundles, trees
from airflow_remote_provider.ledger.bundles import PublishedBundle
from airflow_remote_provider.ledger.trees import NewBlob
from airflow_remote_provider.stores.blobs import BlobStore
from airflow_remote_provider.stores.blobs.database import DatabaseBlobs
from sqlalchemy.orm import Session


def tree_of(files: Mapping[str, bytes], executables: Sequence[str] = ()) -> Tree:
    """Return the tree with these contents by path."""
    return Tree.of(
        Entry(path, hashlib.sha256(content).hexdigest(), len(content), path in executables) for path, content in files.items()
    )


def store(session: Session, files: Mapping[str, bytes], *, blobs: BlobStore | None = None, kind: str = trees.BUNDLE) -> Tree:
    """Begin the tree of *files* and store the blobs that are missing; return it."""
    tree = tree_of(files)
    trees.begin_tree(session, tree, kind, "tests")
    blobs = blobs or DatabaseBlobs()
    contents = {hashlib.sha256(content).hexdigest(): content for content in files.values()}
    new = []
    for sha256 in sorted(trees.missing_blobs(session, contents)):
        encoding, packed = encode_blob(contents[sha256])
        place = blobs.put(session, sha256, packed)
        new.append(NewBlob(sha256, len(contents[sha256]), encoding, len(packed), place))
    blobs.delete(session, trees.add_blobs(session, new))
    return tree


def publish(
    session: Session,
    name: str,
    files: Mapping[str, bytes],
    *,
    version: str | None = None,
    scanned_at: datetime | None = None,
    blobs: BlobStore | None = None,
) -> Tree:
    """Publish *files* as the newest state of a bundle; return the tree."""
    tree = store(session, files, blobs=blobs)
    at = scanned_at or compat.database_now(session)
    assert bundles.publish(session, PublishedBundle(name, version, tree, at, "tests"))
    return tree
