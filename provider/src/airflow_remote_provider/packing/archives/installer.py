"""Makes an installer: an archive with the worker, the runtime of tasks, and what a machine needs to join.

`install.json` holds what `airflow_remote_worker.installer.Contents` reads. Nothing in the file is secret but the token, which
expires and serves for one join; so only the user who made the file can read it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_remote_protocol.packs import decode_blob
from airflow_remote_protocol.trees import Tree
from sqlalchemy.orm import Session

from airflow_remote_provider import __version__, compat
from airflow_remote_provider.ledger import runtimes, trees
from airflow_remote_provider.packing.archives.archive import Archive
from airflow_remote_provider.packing.archives.release import make_worker
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.targets import parse
from airflow_remote_provider.stores.blobs import BlobLost, Piece
from airflow_remote_provider.stores.blobs.opened import BlobStores

FORMAT = 1


@dataclass(frozen=True)
class Sent:
    """The runtime that is to be in the installer."""

    name: str
    serial: int
    trees: Mapping[str, Tree]
    """By platform."""
    missing: Sequence[str] = ()
    """Platforms for which it isn't built."""


@dataclass(frozen=True)
class Joining:
    """What the machine needs to join."""

    central: str
    token: str
    expires_at: datetime
    name: str = ""
    insecure_http: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    ca: str = ""
    trust: Mapping[str, str] = field(default_factory=dict)

    def described(self, sent: Sent | None) -> dict[str, Any]:
        """Return the content of `install.json`."""
        runtime = None
        if sent is not None and sent.trees:
            digests = {platform: tree.digest for platform, tree in sent.trees.items()}
            runtime = {"name": sent.name, "serial": sent.serial, "platforms": digests}
        return {
            "format": FORMAT,
            "central": self.central,
            "token": self.token,
            "expires_at": self.expires_at.timestamp(),
            "name": self.name,
            "insecure_http": self.insecure_http,
            "settings": dict(self.settings),
            "ca": self.ca,
            "trust": dict(self.trust),
            "runtime": runtime,
        }


def find_runtime(session: Session, name: str, platforms: Sequence[str]) -> Sent | None:
    """Return the rolled-out runtime of this name for these platforms; None: it was never built.

    The newest build counts if nothing is rolled out yet.
    """
    known = runtimes.get(session, name)
    serial = (known.serial or known.built) if known is not None else 0
    if known is None or not serial:
        return None
    editions = known.platforms_of(serial)
    found: dict[str, Tree] = {}
    for platform in platforms:
        tree = trees.load_tree(session, editions[platform].tree) if platform in editions else None
        if tree is not None:
            found[platform] = tree
    return Sent(name, serial, found, [platform for platform in platforms if platform not in found])


def make_installer(
    out: Path,
    platforms: Sequence[str],
    *,
    wheels: Path | None,
    sent: Sent | None,
    stores: BlobStores,
    join: Callable[[], Joining],
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Write the installer. *join* is called last before that: a token is not made for a file that can't be.

    Raises:
        CannotBuild: the worker can't be had for a platform, or the blob store lacks a file.
        OSError: the file can't be written.
    """
    with tempfile.TemporaryDirectory(prefix="airflow-installer-") as name:
        workers, readers = {}, {}
        for text in platforms:
            report(f"{text}: resolving and unpacking the worker's packages")
            workers[text], readers[text] = make_worker(parse(text), __version__, Path(name, text), wheels=wheels)
        with Archive(out, is_secret=True) as archive:
            archive.describe(__version__, workers)
            for text, tree in workers.items():
                archive.add_tree(tree, readers[text])
            for text, tree in (sent.trees if sent is not None else {}).items():
                report(f"{text}: adding the runtime {sent.name if sent else ''} ({tree.files} files)")
                archive.add_tree(tree, _reader(tree, stores))
            archive.add_json("install.json", join().described(sent))


def _reader(tree: Tree, stores: BlobStores) -> Callable[[str], bytes]:
    """Return what reads the stored blobs of a tree, some at a time: in the order of the tree."""
    waiting = iter(trees.batches(list(tree.sizes)))
    found: dict[str, bytes] = {}

    def read(sha256: str) -> bytes:
        while sha256 not in found:
            batch = next(waiting)
            found.clear()
            found.update(_contents(batch, stores))
        return found[sha256]

    return read


def _contents(sha256s: Sequence[str], stores: BlobStores) -> list[tuple[str, bytes]]:
    def load(session: Session) -> list[tuple[str, bytes]]:
        known = trees.stored(session, sha256s)
        missing = [sha256 for sha256 in sha256s if sha256 not in known]
        if missing:
            raise CannotBuild(f"{len(missing)} files of the runtime are not stored any more; build it again: runtimes build")
        pieces = [Piece(sha256, known[sha256].place, 0, known[sha256].packed_size) for sha256 in sha256s]
        loaded: list[tuple[str, bytes]] = []
        try:
            for store, numbers in stores.split_pieces(pieces):
                some = [pieces[number] for number in numbers]
                packed = store.read(session if store.needs_session else None, some)
                for piece, data in zip(some, packed, strict=True):
                    blob = known[piece.sha256]
                    loaded.append((piece.sha256, decode_blob(blob.encoding, data, blob.size)))
        except BlobLost as error:
            raise CannotBuild(f"{error}; build the runtime again") from None
        return loaded

    return compat.in_transaction(load)
