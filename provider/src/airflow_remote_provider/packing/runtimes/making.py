"""Makes trees of packages with uv, one for each platform, and stores them. Runtimes and the worker's releases share it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from airflow_remote_protocol.platforms import Platform
from airflow_remote_protocol.trees import MAX_FILES, Tree
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.ledger.trees import BlobsMissing, TreeGone
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.resolve import Uv, Wanted
from airflow_remote_provider.packing.runtimes.targets import own_platform, parse
from airflow_remote_provider.packing.runtimes.trim import check_names, trim
from airflow_remote_provider.packing.scan import Limits, Moved, ScanState, Unpublishable, scan
from airflow_remote_provider.packing.storing import Storing, Transaction
from airflow_remote_provider.stores.blobs import BlobStore

TRIES = 3
"""How often to store again what the garbage collection took while other platforms were built."""


@dataclass(frozen=True)
class Made:
    """The tree of one platform. Sizes in bytes."""

    platform: str
    tree: Tree
    took_s: float
    others: tuple[str, ...] = ()
    """Packages that have another version in it than on central, such as `numpy 2.2.1 (central: 2.3.0)`."""
    stored_files: int = 0
    """Files that central lacked."""
    stored_bytes: int = 0
    """Their packed size."""


@dataclass(frozen=True)
class Report:
    """What became of an order."""

    serial: int | None
    """None: no platform could be built, or all are as they were at the newest serial."""
    made: Sequence[Made] = ()
    failed: Mapping[str, CannotBuild] = field(default_factory=dict)
    """By platform."""


Make = Callable[[Platform, Path], tuple[Made, ScanState]]
"""Makes the tree of one platform in a directory, which does not exist yet. Raises: CannotBuild."""


class Add(Protocol):
    """Publishes what was made."""

    def __call__(self, session: Session, *, made: Sequence[Made], failed: Mapping[str, CannotBuild]) -> int | None:
        """Return the serial; None: nothing has changed. *failed* is why other platforms could not be built."""


class Maker:
    """Makes and stores trees of one kind on this computer. Blocking, one thread."""

    def __init__(
        self,
        store: BlobStore,
        kind: str,
        limits: Limits,
        *,
        who: str,
        report: Callable[[str], None] = lambda line: None,
        environ: Mapping[str, str] | None = None,
        in_transaction: Transaction = compat.in_transaction,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*who* names this process for users. *report* is called with lines about the progress."""
        self.limits = replace(limits, files=MAX_FILES)
        self.monotonic = monotonic
        self._report = report
        self._environ = os.environ if environ is None else environ
        self._in_transaction = in_transaction
        self._storing = Storing(store, kind, who=who, packers=os.cpu_count() or 1, in_transaction=in_transaction)

    def build(self, platforms: Sequence[str], make: Make, add: Add) -> Report:
        """Make the trees, store them, and publish them. A platform that can't be built does not keep the others from it.

        Raises:
            LedgerError: what was stored is removed again and again.
            OSError: the disk, or the store of blobs, does not take it.
            SQLAlchemyError: the database does not answer.
        """
        failed: dict[str, CannotBuild] = {}
        made: list[tuple[Made, ScanState]] = []
        with _directory() as work:
            for text in platforms:
                try:
                    made.append(make(parse(text), work / text))
                except CannotBuild as error:
                    failed[text] = error
                    self._report(f"{text}: not built: {error}")
            return self._publish(made, failed, add) if made else Report(None, (), failed)

    def unpack(self, wanted: Wanted, work: Path) -> Path:
        """As :func:`unpack`."""
        self._report(f"{wanted.platform}: resolving and unpacking packages")
        return unpack(wanted, work, environ=self._environ, limits=self.limits)

    def _publish(self, made: Sequence[tuple[Made, ScanState]], failed: Mapping[str, CannotBuild], add: Add) -> Report:
        for left in reversed(range(TRIES)):
            stored: list[Made] = []
            for one, state in made:
                self._report(f"{one.platform}: packing and storing the files that central lacks")
                files, size = self._storing.store(one.tree, state)
                stored.append(replace(one, stored_files=files, stored_bytes=size))
                self._report(describe(stored[-1]))
            try:
                return Report(self._in_transaction(partial(add, made=stored, failed=failed)), stored, failed)
            except (TreeGone, BlobsMissing):
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")


def unpack(wanted: Wanted, work: Path, *, environ: Mapping[str, str], limits: Limits) -> Path:
    """Return the directory of a tree, with the packages in `site-packages`.

    Raises:
        CannotBuild: they can't be had, or can't travel.
    """
    directory = work / "tree"
    site = directory / "site-packages"
    site.mkdir(parents=True)
    (work / "uv").mkdir()
    uv = Uv(work / "uv", environ)
    uv.install(wanted, uv.lock(wanted), site)
    trim(site, wanted.platform, own_platform())
    check_names(site, limits)
    return directory


def scan_made(directory: Path, limits: Limits) -> tuple[Tree, ScanState]:
    """Return the tree of a directory.

    Raises:
        CannotBuild: a file can't travel.
    """
    try:
        return scan(directory, limits=limits, ignored=())
    except (Unpublishable, Moved) as error:
        raise CannotBuild(f"its files can't travel: {error}") from None


def describe(made: Made) -> str:
    """Return a line for users."""
    size = f"files: {made.tree.files}, bytes: {made.tree.bytes}"
    stored = f"new files: {made.stored_files}, packed bytes: {made.stored_bytes}"
    return f"{made.platform}: tree {made.tree.digest[:12]} ({size}; {stored}; {made.took_s:.1f} s)"


@contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="airflow-runtime-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
