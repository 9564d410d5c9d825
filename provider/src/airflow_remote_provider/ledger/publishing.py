"""Which process publishes which Dag bundle, and what publishers are asked for. :mod:`.bundles` stores what they publish."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import bundles
from airflow_remote_provider.ledger.duty import drop_duties, take_duties
from airflow_remote_provider.ledger.trees import BUNDLE
from airflow_remote_provider.models import BundleRow, Duty, Edition


@dataclass(frozen=True)
class Assignment:
    """What one process is to publish."""

    names: frozenset[str] = frozenset()
    """The bundles that this process alone publishes now."""
    asked: frozenset[str] = frozenset()
    """Those of them that a user asked to publish."""
    versions: Mapping[str, list[str]] = field(default_factory=dict)
    """Versions of them that jobs need and nobody has published, by bundle."""


def assign(session: Session, names: Collection[str], holder: str, *, lasts: timedelta) -> Assignment:
    """Take or keep the duty to publish those of *names* that no other process publishes, until *lasts* from now.

    Three statements for any number of bundles.
    """
    of_duty = {duty_name(name): name for name in names}
    held = {of_duty[duty] for duty in take_duties(session, of_duty, holder, lasts=lasts)}
    asked, versions = _wanted(session)
    return Assignment(
        frozenset(held), frozenset(asked & held), {name: wanted for name, wanted in versions.items() if name in held}
    )


def leave(session: Session, names: Collection[str], holder: str) -> None:
    """Give up the duty to publish *names*, so that another process need not wait until it expires."""
    drop_duties(session, [duty_name(name) for name in names], holder)


def note_unpublished(session: Session, names: Collection[str], text: str) -> None:
    """Note *text* as the trouble of those of *names* of which nothing is known, so that no job waits for their publication."""
    known = set(session.scalars(select(BundleRow.name).where(BundleRow.name.in_(list(names)))))
    for name in sorted(set(names) - known):
        bundles.note_trouble(session, name, text)


def publishing_now(session: Session, names: Collection[str]) -> set[str]:
    """Return those of *names* that some process publishes now."""
    of_duty = {duty_name(name): name for name in names}
    now = database_now(session)
    return {of_duty[duty] for duty in session.scalars(select(Duty.name).where(Duty.until > now)) if duty in of_duty}


def note_unchanged(session: Session, digests: Mapping[str, str], ago: Callable[[], timedelta], *, publisher: str) -> set[str]:
    """Note complete scans that found bundles unchanged. *digests* are the trees that were found; *ago* is as for
    :func:`when_begun`.

    Return the bundles whose newest tree is another one, because another process has published since. Publish them again.
    """
    scanned_at = when_begun(session, ago)
    rows = session.execute(select(BundleRow.name, BundleRow.tree).where(BundleRow.name.in_(list(digests))))
    same = {row.name for row in rows if digests[row.name] == row.tree}
    for name in sorted(same):
        bundles.note_scan(session, name, scanned_at, publisher=publisher)
    return set(digests) - same


def when_begun(session: Session, ago: Callable[[], timedelta]) -> datetime:
    """Return the database's clock when a scan began, or a little earlier. *ago* returns how long ago that was.

    So a scan needs no statement before it. The database's clock is read first: then the error is never to the other side.
    """
    now = database_now(session)
    return now - ago()


def duty_name(name: str) -> str:
    """Return the name of the duty to publish a bundle. Names of bundles are longer than those of duties."""
    return f"publish {hashlib.sha256(name.encode()).hexdigest()[:40]}"


def _wanted(session: Session) -> tuple[set[str], dict[str, list[str]]]:
    """Return the bundles that a user asked to publish, and the versions that jobs need, by bundle, the longest wanted first."""
    asked = set(session.scalars(select(BundleRow.name).where(BundleRow.wanted_at.is_not(None))))
    query = select(Edition.name, Edition.version).where(
        Edition.kind == BUNDLE, Edition.tree.is_(None), Edition.wanted_at.is_not(None), Edition.version != ""
    )
    versions: dict[str, list[str]] = {}
    for row in session.execute(query.order_by(Edition.wanted_at, Edition.id)):
        versions.setdefault(row.name, []).append(row.version)
    return asked, versions
