"""Releases of the worker's own software that central sends: what was added, and which one workers are to run.

Which worker is to run which is decided in :mod:`.assignments`, and changed by :mod:`.rollouts`. Each change locks the row first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_remote_protocol.version import Capability
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.assignments import WORKER, newest_edition, release_host_of
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.runtimes import (
    Built,
    RuntimeEdition,
    check_platforms,
    editions,
    finish_trees,
    note_change,
    publish,
    trees_of,
)
from airflow_remote_provider.ledger.trees import RELEASE
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import find_worker
from airflow_remote_provider.models import ReleaseRow, Worker


@dataclass(frozen=True)
class ReleaseRecord:
    """What was added, and how. As the columns of :class:`..models.ReleaseRow`."""

    serial: int
    built: int
    updated_by: str
    follow: bool
    built_with: Mapping[str, str]
    versions: Mapping[str, str]
    editions: tuple[RuntimeEdition, ...]
    """The newest serial first."""

    @property
    def newest_version(self) -> str:
        """The version of the newest serial; empty: it is not known."""
        return next((self.versions.get(edition.tree, "") for edition in self.editions), "")


def get(session: Session) -> ReleaseRecord | None:
    """Return what was added; None: nothing."""
    row = session.get(ReleaseRow, WORKER, populate_existing=True)
    if row is None:
        return None
    some = editions(session, WORKER, kind=RELEASE).get(WORKER, ())
    return ReleaseRecord(row.serial, row.built, row.updated_by, row.follow, row.built_with or {}, row.versions, some)


def find_locked(session: Session) -> ReleaseRow | None:
    """Return the locked row; None: nothing was ever added."""
    query = select(ReleaseRow).where(ReleaseRow.name == WORKER).with_for_update()
    found: ReleaseRow | None = session.scalar(query.execution_options(populate_existing=True))
    return found


def must_lock(session: Session) -> ReleaseRow:
    """Return the locked row.

    Raises:
        NotFound: nothing was ever added.
    """
    row = find_locked(session)
    if row is None:
        raise none_added()
    return row


def none_added() -> NotFound:
    return NotFound("central has no release of the worker; add one: airflow remote releases add")


def _lock(session: Session) -> ReleaseRow:
    known = find_locked(session)
    if known is not None:
        return known
    row = ReleaseRow(
        name=WORKER,
        serial=0,
        previous=0,
        built=0,
        percent=100,
        labels=None,
        halted="",
        versions={},
        follow=True,
        built_with=None,
        trouble="",
        updated_at=database_now(session),
        updated_by="",
    )
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:  # added by another process at this moment
        return must_lock(session)
    return row


def add(
    session: Session,
    version: str,
    built: Sequence[Built],
    *,
    by: str,
    built_with: Mapping[str, str] | None = None,
    follow: bool | None = None,
) -> int | None:
    """Add a release: its trees, for some platforms. It is not rolled out. Return its serial; None: the newest ones have these.

    Args:
        version: of the package `airflow-remote-worker`.
        built_with: central's versions; None: they are not known.
        follow: whether the release of a newer provider is made without a command; None: as before.

    Raises:
        LedgerError: a platform is not valid or named twice, or no platform is named.
        TreeGone, BlobsMissing: as :func:`.trees.finish_tree`; nothing has changed.
    """
    check_platforms([one.platform for one in built])
    row = _lock(session)
    row.built_with = None if built_with is None else dict(built_with)
    row.follow = row.follow if follow is None else follow
    before = {edition.platform: edition.tree for edition in reversed(editions(session, WORKER, kind=RELEASE).get(WORKER, ()))}
    if all(before.get(one.platform) == one.tree for one in built):
        return None
    finish_trees(session, built, "add the release again")
    row.built += 1
    publish(session, WORKER, row.built, {one.platform: one.tree for one in built}, kind=RELEASE)
    known = {edition.tree for edition in editions(session, WORKER, kind=RELEASE).get(WORKER, ())}
    new = {one.tree: presentable(version, longest=50) for one in built}
    row.versions = {tree: one for tree, one in row.versions.items() if tree in known} | new
    row.trouble = ""
    platforms = ", ".join(sorted(one.platform for one in built))
    record_action(session, by, f"added the release {version} of the worker as serial {row.built} for {platforms}")
    note_change(session, row, by)
    return row.built


def fleet_platforms(session: Session) -> Counter[str]:
    """Return how many workers take releases from central, by platform. Removed and revoked workers are not counted."""
    query = select(Worker.facts, Worker.capabilities).where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
    return Counter(
        platform
        for facts, capabilities in session.execute(query)
        if Capability.RELEASES.value in (capabilities or ()) and (platform := (facts or {}).get("release_platform", ""))
    )


def request_update(session: Session, name: str, *, by: str) -> None:
    """Let one worker have the newest release now, whatever the share of the rollout.

    Raises:
        NotFound: there is no such worker, or no release.
        LedgerError: the worker takes no releases, or no release is for its platform.
    """
    row = must_lock(session)
    worker = find_worker(session, name)
    host = release_host_of(worker)
    if host is None:
        raise LedgerError(
            f"worker {name!r} takes no releases from central: it never connected, is older than releases, or its settings refuse "
            "them (update.accept); update it on its machine"
        )
    newest = newest_edition(trees_of(editions(session, WORKER, kind=RELEASE).get(WORKER, ())), host, "", row.built)
    if newest is None:
        raise LedgerError(
            f"no release is for the platform of worker {name!r}; add one: airflow remote releases add --platform "
            f"{host.platform or 'PLATFORM'}"
        )
    worker.release_asked = newest.serial
    worker.changed_at = stamp(session)
    record_action(session, by, f"requested an update to serial {newest.serial} of the worker's releases", worker=worker)
    wake(session, Topic.WORKER)
