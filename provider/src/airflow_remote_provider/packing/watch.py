"""Publishes bundles again and again: which ones this process publishes, when each is due, and what wakes it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.compat import BundleUnavailable
from airflow_remote_provider.ledger import publishing
from airflow_remote_provider.ledger.publishing import Assignment
from airflow_remote_provider.packing.publish import Outcome, Publisher, Result
from airflow_remote_provider.packing.storing import Transaction

log = logging.getLogger(__name__)

EVERY_S = 10.0
"""How often to scan. A job whose code is not known by its hash waits for the next scan."""
DUTY_LASTS = timedelta(seconds=35)
"""Two rounds may fail before another process takes over."""
ELSEWHERE_S = 60.0
"""How long to leave a bundle to others whose files are not here."""
VERSION_AGAIN_S = 30.0
"""How long to wait after a failure to make a version, such as a network error."""


class Rounds:
    """The rounds of one process. A round that finds nothing changed is one transaction."""

    def __init__(
        self,
        publisher: Publisher,
        names: Callable[[], Collection[str]],
        *,
        in_transaction: Transaction = compat.in_transaction,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*names* returns the bundles that this process can publish now."""
        self._publisher = publisher
        self._names = names
        self._holder = str(uuid4())
        self._in_transaction = in_transaction
        self._monotonic = monotonic
        self._assigned = Assignment()
        self._assigned_at = -DUTY_LASTS.total_seconds()
        self._answered: frozenset[str] = frozenset()
        """Bundles that a user asked for, and that were scanned since."""
        self._elsewhere: dict[str, float] = {}
        self._scanned: dict[str, float] = {}
        self._version_at: dict[tuple[str, str], float] = {}
        """When versions that could not be made are to be tried again."""

    @property
    def assigned(self) -> frozenset[str]:
        """The bundles that this process alone publishes."""
        return self._assigned.names

    @property
    def has_news(self) -> bool:
        """Whether a user or a job asks for something that the next round would do: then don't wait with it."""
        return bool(self._assigned.asked - self._answered or any(True for _ in self._wanted()))

    def run(self) -> list[Outcome]:
        """Publish what is due; return what became of each attempt.

        Raises:
            SQLAlchemyError: the database does not answer. Call it again.
        """
        if self._monotonic() - self._assigned_at > DUTY_LASTS.total_seconds() / 2:
            self._assign()
        outcomes = []
        self._answered = self._assigned.asked
        for name in sorted(self._assigned.names):
            if self._is_due(name):
                outcomes.append(self._publisher.publish(name))
                self._scanned[name] = outcomes[-1].began
        for name, version in list(self._wanted()):
            outcomes.append(self._publisher.publish_version(name, version))
            self._version_at[name, version] = self._monotonic() + VERSION_AGAIN_S
        for name in sorted(self._assign(outcomes) & self._assigned.names):  # central no longer has what was found unchanged
            self._publisher.forget(name)
            outcomes.append(self._publisher.publish(name))
        return outcomes

    def look(self) -> None:
        """Renew the duties and learn what is asked for, between two rounds.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        self._assign()

    def leave(self) -> None:
        """Let other processes publish these bundles at once."""
        self._in_transaction(lambda session: publishing.leave(session, self._assigned.names, self._holder))
        self._assigned = Assignment()

    def _is_due(self, name: str) -> bool:
        """Return whether to scan a bundle in this round. One with versions is refreshed as often as Airflow does."""
        source = self._publisher.sources[name]
        if not source.is_versioned or name in self._assigned.asked or name not in self._scanned:
            return True
        try:
            return self._monotonic() - self._scanned[name] >= source.refresh_s
        except BundleUnavailable:
            return True  # the attempt notes the reason

    def _wanted(self) -> Iterator[tuple[str, str]]:
        """Yield the versions to make now."""
        for name, versions in self._assigned.versions.items():
            for version in versions:
                if self._version_at.get((name, version), 0.0) <= self._monotonic():
                    yield name, version

    def _assign(self, outcomes: Iterable[Outcome] = ()) -> set[str]:
        """In one transaction, note the bundles that did not change, and learn what to do in the next round.

        Return those of them whose newest tree in the ledger is another one.
        """
        outcomes = list(outcomes)
        unchanged = [outcome for outcome in outcomes if outcome.what is Result.UNCHANGED and outcome.tree is not None]
        digests = {outcome.name: outcome.tree.digest for outcome in unchanged if outcome.tree is not None}
        began = min((outcome.began for outcome in unchanged), default=0.0)
        not_here = [outcome.name for outcome in outcomes if outcome.what is Result.NOT_HERE]
        now = self._monotonic()
        self._elsewhere |= dict.fromkeys(not_here, now + ELSEWHERE_S)
        names = [name for name in self._names() if self._elsewhere.get(name, 0.0) <= now]

        def note(session: Session) -> tuple[set[str], Assignment]:
            if not_here:
                publishing.leave(session, not_here, self._holder)
            differ: set[str] = set()
            if digests:
                differ = publishing.note_unchanged(
                    session, digests, lambda: timedelta(seconds=self._monotonic() - began), publisher=self._publisher.who
                )
            return differ, publishing.assign(session, names, self._holder, lasts=DUTY_LASTS)

        differ, self._assigned = self._in_transaction(note)
        self._assigned_at = now
        still = {(name, version) for name, versions in self._assigned.versions.items() for version in versions}
        self._version_at = {key: at for key, at in self._version_at.items() if key in still}
        return differ


class Changes:
    """Notices changes of files below directories, where the operating system reports them."""

    def __init__(self, directories: Collection[Path], stop: threading.Event | None = None) -> None:
        """*stop* ends a wait, within half a second."""
        self._directories = directories
        self._stop = stop or threading.Event()
        self._watch: Iterator[Any] | None = None
        self._again_at = 0.0

    def wait(self, seconds: float) -> bool:
        """Wait for a change; return whether there was one within *seconds*. Blocks."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            watch = self._opened()
            if watch is None:
                self._stop.wait(left)
                return False
            try:
                if next(watch, None):
                    return True
            except (OSError, RuntimeError) as error:  # a directory disappeared, or there are too many for the system's limit
                log.debug("Can't watch the directories of bundles: %s", error)
                self._watch, self._again_at = None, time.monotonic() + 60
        return False

    def _opened(self) -> Iterator[Any] | None:
        if self._watch is None and self._directories and time.monotonic() >= self._again_at:
            try:
                import watchfiles
            except ImportError:  # Airflow has it as a part of uvicorn's extras
                return None
            there = [path for path in self._directories if path.is_dir()]
            if there:
                self._watch = watchfiles.watch(
                    *there, debounce=300, rust_timeout=500, yield_on_timeout=True, raise_interrupt=True
                )
        return self._watch
