"""Publishes Dag bundles: scans their files, stores what central lacks, and notes the tree in the ledger. Blocking, one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from airflow_remote_protocol.trees import Tree
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.compat import BundleSource, BundleUnavailable, Checkout, VersionGone
from airflow_remote_provider.ledger import bundles, publishing
from airflow_remote_provider.ledger.bundles import PublishedBundle
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.trees import BUNDLE, BlobsMissing, TreeGone
from airflow_remote_provider.packing.scan import IGNORE_FILE, Limits, Moved, ScanState, Unpublishable, scan
from airflow_remote_provider.packing.storing import Storing, Transaction
from airflow_remote_provider.stores.blobs import BlobStore

log = logging.getLogger(__name__)

TRIES = 3
"""How often to begin again if files change, or the garbage collection takes blobs, while a tree is stored."""


class Result(Enum):
    """What became of an attempt to publish."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    NOT_HERE = "not here"
    """The directory has none of the Dag files that Airflow has parsed of the bundle, so it is not the bundle's."""
    EMPTY = "empty"
    """The directory is empty, and Airflow has parsed nothing of the bundle: its first Dag is still to be written."""


@dataclass(frozen=True)
class Outcome:
    """The result of one attempt, for logs and users."""

    name: str
    version: str | None
    what: Result
    began: float
    """When the scan began, on the monotonic clock of this process."""
    tree: Tree | None = None
    trouble: str = ""
    """Why it failed; or what is wrong with a bundle that was published nevertheless."""
    stored_files: int = 0
    """Files that central lacked."""
    stored_bytes: int = 0
    """Their packed size."""


class Publisher:
    """Publishes bundles of *sources*. Keeps what it has scanned, so that the next scan reads changed files only."""

    def __init__(
        self,
        sources: Mapping[str, BundleSource],
        store: BlobStore,
        limits: Limits,
        *,
        who: str,
        has_to_match: bool = False,
        pause: Callable[[], None] = lambda: None,
        in_transaction: Transaction = compat.in_transaction,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*who* names this process for users.

        With *has_to_match*, a directory that has none of the Dag files that Airflow has parsed of the bundle is not published: on
        a machine without the bundle's files, its path may be an empty directory.
        """
        self.sources = sources
        self.who = who
        self._limits = limits
        self._has_to_match = has_to_match
        self._pause = pause
        self._in_transaction = in_transaction
        self._monotonic = monotonic
        self._states: dict[str, ScanState] = {}
        self._published: dict[str, tuple[str | None, str]] = {}
        """By bundle, the version and the tree of its last publication by this process."""
        self._troubles: dict[str, str] = {}
        self._blobs = Storing(store, BUNDLE, who=who, pause=pause, in_transaction=in_transaction)

    def publish(self, name: str) -> Outcome:
        """Publish the newest files of a bundle. A failure is noted in the ledger, and the last good tree stays the newest.

        An unchanged bundle costs no statement: the caller notes it, together with others (:func:`.publishing.note_unchanged`).

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        return self._attempt(name, None, lambda: self.sources[name].newest())

    def publish_version(self, name: str, version: str) -> Outcome:
        """Publish a version of a bundle that jobs need. If it does not exist, they fail with the reason.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        return self._attempt(name, version, lambda: self.sources[name].at(version))

    def forget(self, name: str) -> None:
        """Publish the bundle again at the next attempt, even if it is unchanged: another process has published another tree."""
        self._published.pop(name, None)

    def _attempt(self, name: str, version: str | None, open_files: Callable[[], AbstractContextManager[Checkout]]) -> Outcome:
        began = self._monotonic()
        try:
            with open_files() as checkout:
                outcome = self._publish_checkout(name, checkout, began, is_newest=version is None)
        except VersionGone as error:
            self._note_trouble(name, str(error), version)
            return Outcome(name, version, Result.FAILED, began, trouble=str(error))
        except (BundleUnavailable, Unpublishable, Moved, LedgerError, OSError) as error:
            text = str(error) if version is None else f"version {version}: {error}"
            if self._troubles.get(name) != text:
                self._note_trouble(name, text)
            return Outcome(name, version, Result.FAILED, began, trouble=text)
        if outcome.trouble:
            self._note_trouble(name, outcome.trouble)
        elif version is None and self._troubles.pop(name, None) is not None:
            log.info("The Dag bundle %r can be published again", name)
        return outcome

    def _publish_checkout(self, name: str, checkout: Checkout, began: float, *, is_newest: bool) -> Outcome:
        for left in reversed(range(TRIES)):
            known = self._states.get(name, ScanState()) if is_newest else ScanState()
            tree, state = scan(checkout.path, known, limits=self._limits, pause=self._pause)
            if is_newest:
                self._states[name] = state
            version, trouble = checkout.version, _restless(state)
            if is_newest and self._published.get(name) == (version, tree.digest):
                return Outcome(name, version, Result.UNCHANGED, began, tree, trouble)
            if self._has_to_match and (strange := self._judge(name, tree)) is not None:
                return Outcome(name, version, strange, began, tree)
            try:
                files, size = self._blobs.store(tree, state)
                self._note(name, version, tree, began, is_newest=is_newest)
            except (Moved, TreeGone, BlobsMissing):
                if not left:
                    raise
                continue
            if is_newest:
                self._published[name] = version, tree.digest
            return Outcome(name, version, Result.PUBLISHED, began, tree, trouble, files, size)
        raise AssertionError("the last try returns or raises")

    def _judge(self, name: str, tree: Tree) -> Result | None:
        """Return why *tree* may not be the bundle; None if it is: it has a Dag file that Airflow has parsed, or else any file."""
        parsed = self._in_transaction(lambda session: compat.parsed_dag_files(session, name))
        if parsed:
            return None if any(_has_file(tree, path) for path in parsed) else Result.NOT_HERE
        return None if tree.files else Result.EMPTY

    def _note(self, name: str, version: str | None, tree: Tree, began: float, *, is_newest: bool) -> None:
        def publish(session: Session) -> bool:
            scanned_at = publishing.when_begun(session, lambda: timedelta(seconds=self._monotonic() - began))
            return bundles.publish(session, PublishedBundle(name, version, tree, scanned_at, self.who, is_newest))

        self._in_transaction(publish)

    def _note_trouble(self, name: str, text: str, version: str | None = None) -> None:
        if version is None:
            if self._troubles.get(name) != text:
                log.warning("The Dag bundle %r can't be published: %s", name, text)
            self._troubles[name] = text
        else:
            log.warning("Version %s of the Dag bundle %r can't be published: %s", version, name, text)
        self._in_transaction(lambda session: bundles.note_trouble(session, name, text, version, publisher=self.who))


def _has_file(tree: Tree, path: str) -> bool:
    """Return whether the tree has the Dag file *path*, or the archive that contains it."""
    parts = path.split("/")
    return any(tree.get("/".join(parts[:count])) is not None for count in range(1, len(parts) + 1))


def _restless(state: ScanState) -> str:
    if not state.restless:
        return ""
    named = ", ".join(state.restless[:3])
    return f"it is published, but these files change all the time: {named}; name them in {IGNORE_FILE} if Dags don't need them"
