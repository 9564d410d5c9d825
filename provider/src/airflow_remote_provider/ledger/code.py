"""Which code a job runs: chosen when it is queued and again, for good, when it is first offered.

A job never runs code older than central parsed. Its Dag file is compared by content: Airflow stores the hash of the source that
it parsed, and rewrites it in place, so it is read at the moment of the choice (ADR 0042).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from airflow_remote_protocol.messages import TreeRef
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.compat import ParsedSource
from airflow_remote_provider.ledger import bundles, trees
from airflow_remote_provider.ledger.bundles import PublishedTree
from airflow_remote_provider.ledger.jobs import NewJob
from airflow_remote_provider.ledger.trees import READY
from airflow_remote_provider.models import BundleRow, TreeRow

TREES_COMPARED = 4
"""How many of the newest trees of a bundle are compared with the source that central parsed."""
MOST_HASHES = 20_000
"""Hashes of Dag files that one process remembers."""


@dataclass(frozen=True)
class CodeNeed:
    """What a job needs to run."""

    bundle: str
    version: str | None = None
    """None: its bundle has no versions."""
    dag_version: UUID | None = None
    """Airflow's version of its Dag; None: any code of its bundle will do."""
    dag_file: str | None = None
    """Path within the bundle."""


@dataclass(frozen=True)
class Choice:
    """The code for one job."""

    tree: str | None = None
    """Digest; None: the site must have the code, or the job waits."""
    waits_for: str = ""
    """The code that it waits for, for users; empty: it need not wait."""
    newest: str | None = None
    """The tree to run when the job's patience is over; None: nothing can replace what it waits for."""


IMPATIENT = (
    "No published state of its bundle was known to be as new as what central parsed, and `[remote] publish_patience_seconds` are "
    "over. The newest published state runs. `airflow remote bundles list` says who publishes the bundle, and when it did last"
)
"""For the log of a task whose wait has ended without newer code."""
SITE = Choice()
"""The site must have the code, because central does not publish its bundle."""


def choose(session: Session, needs: Sequence[CodeNeed], sources: Mapping[UUID, ParsedSource] | None = None) -> list[Choice]:
    """Return the code for each job. One or two statements for each bundle, and one for all sources if *sources* is None.

    *sources*: what Airflow has parsed for each version of a Dag, read just now.
    """
    if sources is None:
        sources = compat.parsed_sources(
            session, {need.dag_version for need in needs if need.dag_version is not None and not need.version}
        )
    newest: dict[str, Sequence[PublishedTree]] = {}
    versions: dict[tuple[str, str], Choice] = {}
    choices = []
    for need in needs:
        if need.version is not None:
            key = need.bundle, need.version
            if key not in versions:
                versions[key] = _choose_version(session, *key)
            choices.append(versions[key])
            continue
        if need.bundle not in newest:
            newest[need.bundle] = bundles.newest_trees(session, need.bundle, most=TREES_COMPARED)
        source = sources.get(need.dag_version) if need.dag_version is not None else None
        choices.append(_choose_newest(session, need, newest[need.bundle], source))
    return choices


def _choose_version(session: Session, name: str, version: str) -> Choice:
    tree = bundles.tree_of_version(session, name, version)
    if tree is not None:
        return Choice(tree)
    if not bundles.is_published(session, name):
        return SITE
    return Choice(waits_for=f"version {version} of the bundle {name!r}, which is not published yet")


def _choose_newest(session: Session, need: CodeNeed, published: Sequence[PublishedTree], source: ParsedSource | None) -> Choice:
    if not published:
        return SITE
    newest = published[0]
    if source is None:
        return Choice(newest.tree)
    for one in published:
        if need.dag_file and _source_hash(session, one.tree, need.dag_file) == source.digest:
            return Choice(one.tree)
    if newest.scanned_at > source.updated_at:
        return Choice(newest.tree)
    what = (
        f"{need.dag_file} of the bundle {need.bundle!r} as central parsed it at {source.updated_at:%H:%M:%S} UTC; "
        f"the last scan for publishing began at {newest.scanned_at:%H:%M:%S} UTC"
    )
    return Choice(waits_for=what, newest=newest.tree)


def set_code(
    session: Session,
    new: Sequence[NewJob],
    sources: Mapping[UUID, ParsedSource] | None = None,
    *,
    patience: timedelta,
    is_awaited: bool,
) -> list[NewJob]:
    """Return *new* with the information whether each job waits for code, and ask the publishers for that code.

    Args:
        sources: as for :func:`choose`.
        patience: how long a job waits for newer code before it runs the newest that is published.
        is_awaited: whether a bundle of which no publisher has said anything yet will be published soon.
    """
    needs = {job.job_id: need for job in new if (need := need_of(job)) is not None and job.tree is None}
    choices = dict(zip(needs, choose(session, list(needs.values()), sources), strict=True))
    waiting = [job_id for job_id, choice in choices.items() if choice.waits_for]
    if waiting:
        # The bundles' rows are locked now, so whatever is published later also finds these jobs. Look once more for the rest.
        _request(session, [needs[job_id] for job_id in waiting])
        choices |= zip(waiting, choose(session, [needs[job_id] for job_id in waiting]), strict=True)
    unknown: set[str] = set()
    if is_awaited:
        names = {needs[job_id].bundle for job_id, choice in choices.items() if choice is SITE}
        unknown = names - set(session.scalars(select(BundleRow.name).where(BundleRow.name.in_(names)))) if names else set()
    return [_with_choice(job, choices.get(job.job_id, SITE), patience, unknown) for job in new]


def _with_choice(job: NewJob, choice: Choice, patience: timedelta, unknown: Collection[str]) -> NewJob:
    if choice.waits_for:
        return replace(job, waits_for_code=True, code_patience=patience if choice.newest else None)
    if choice is SITE and job.bundle in unknown:
        return replace(job, waits_for_code=True, code_patience=patience)
    return job


def _request(session: Session, needs: Collection[CodeNeed]) -> None:
    for name, version in sorted({(need.bundle, need.version or "") for need in needs}):
        if version:
            bundles.want_version(session, name, version)
        else:
            bundles.request(session, name)


def need_of(job: Any) -> CodeNeed | None:
    """Return what a job (a :class:`NewJob`, or a row with its columns) needs; None: it has no code of a bundle."""
    if job.bundle is None or job.dag_file is None:
        return None
    return CodeNeed(job.bundle, job.bundle_version, job.dag_version, job.dag_file)


def pin(session: Session, digests: Collection[str], *, runtimes: Collection[str] = ()) -> dict[str, TreeRef]:
    """Lock trees against deletion until the transaction ends, in which jobs are to refer to them. Return those that are ready.

    Workers have *runtimes* already, so those are also returned of which central has lost files. The locks are shared, so claims
    don't wait for each other.
    """
    if not digests and not runtimes:
        return {}
    wanted = {*digests, *runtimes}
    query = select(TreeRow.digest, TreeRow.files, TreeRow.bytes, TreeRow.state).where(TreeRow.digest.in_(wanted))
    rows = session.execute(query.order_by(TreeRow.digest).with_for_update(read=True))
    return {row.digest: TreeRef(row.digest, row.files, row.bytes) for row in rows if row.state == READY or row.digest in runtimes}


# The hash of a Dag file's source. What a file of a tree contains never changes, so hashes are remembered.

_hashes: OrderedDict[tuple[str, str], str] = OrderedDict()
_lock = threading.Lock()


def _source_hash(session: Session, digest: str, path: str) -> str:
    """Return the hash of a Dag file's source in a tree; empty: the tree has no such file, or it is not Python."""
    key = digest, path
    with _lock:
        if (known := _hashes.get(key)) is not None:
            _hashes.move_to_end(key)
            return known
    tree = trees.load_tree(session, digest)
    entry = None if tree is None else tree.get(path)
    found = "" if entry is None else trees.text_hashes(session, [entry.sha256]).get(entry.sha256, "")
    if not found and path.endswith(".py"):
        return found  # it may have been lost, and be stored again soon
    with _lock:
        _hashes[key] = found
        if len(_hashes) > MOST_HASHES:
            _hashes.popitem(last=False)
    return found
