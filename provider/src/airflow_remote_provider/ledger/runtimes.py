"""Runtimes that central sends: their names, serials, recipes, and their editions, one for each serial and platform.

Which workers are to have which serial is decided in :mod:`.assignments`, and changed by :mod:`.rollouts`. Each change locks the
runtime's row first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from airflow_remote_protocol.messages import TreeRef
from airflow_remote_protocol.platforms import BadPlatform, Platform
from airflow_remote_protocol.version import Capability
from sqlalchemy import literal, select, union_all
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.assignments import WORKER, Plan, ReleasePlan, Rollout, Version
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.trees import RELEASE, RUNTIME, TreeGone, finish_tree, load_tree
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Edition, Queue, ReleaseRow, RuntimeRow, TreeRow, Worker

LONGEST_TROUBLE = 2000
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")


@dataclass(frozen=True)
class Recipe:
    """How a runtime is built."""

    requirements: str = ""
    """Lines of a requirements file, beside Airflow's own packages."""
    platforms: tuple[str, ...] = ()
    """Names of platforms, as :mod:`airflow_remote_protocol.platforms`."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of tasks."""
    follow: bool = True
    """Whether it is built again when central's versions have changed, and rolled out."""
    build_sdists: bool = False
    """Whether packages may be built for which there is no wheel. That runs their code on the machine that builds."""


@dataclass(frozen=True)
class Built:
    """The tree of a runtime for one platform. :func:`.trees.begin_tree` was called for it, and its blobs are stored."""

    platform: str
    tree: str
    """Its digest."""


@dataclass(frozen=True)
class RuntimeEdition:
    """The tree of one serial for one platform."""

    serial: int
    platform: str
    tree: str
    """Its digest."""
    files: int
    bytes: int
    published_at: datetime


@dataclass(frozen=True)
class RuntimeRecord:
    """A runtime: how it is built, what is built, and what is rolled out. As the columns of :class:`..models.RuntimeRow`."""

    name: str
    recipe: Recipe
    serial: int
    previous: int
    built: int
    percent: int
    labels: str | None
    halted: str
    built_with: Mapping[str, str]
    updated_at: datetime
    updated_by: str
    trouble: str = ""
    editions: tuple[RuntimeEdition, ...] = ()
    """The newest serial first."""

    def platforms_of(self, serial: int) -> Mapping[str, RuntimeEdition]:
        """Return the editions of one serial, by platform."""
        return {edition.platform: edition for edition in self.editions if edition.serial == serial}


def check_name(name: str) -> str:
    """Return *name* if a runtime can have it.

    Raises:
        LedgerError: it can't.
    """
    if not NAME.match(name):
        raise LedgerError(
            f"{name[:80]!r} is not a valid name of a runtime: write 1 to 63 lower-case letters, digits, '.', '_' or '-', "
            "and begin with a letter or digit"
        )
    return name


def next_serial(session: Session, name: str) -> int:
    """Return the serial of the next build of *name*. Its row, which is added if it is missing, is locked until the commit.

    Raises:
        LedgerError: the name is not valid.
    """
    return lock(session, name).built + 1


def lock(session: Session, name: str) -> RuntimeRow:
    """Return the locked row of a runtime; a new one if it has none.

    Raises:
        LedgerError: the name is not valid.
    """
    known = find_locked(session, name)
    if known is not None:
        return known
    row = RuntimeRow(
        name=check_name(name),
        serial=0,
        previous=0,
        built=0,
        percent=100,
        labels=None,
        halted="",
        recipe=_packed(Recipe()),
        built_with={},
        trouble="",
        updated_at=database_now(session),
        updated_by="",
    )
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:  # added by another process at this moment
        return must_lock(session, name)
    return row


def find_locked(session: Session, name: str) -> RuntimeRow | None:
    """Return the locked row of a runtime; None if there is no such runtime."""
    found: RuntimeRow | None = session.scalar(_locking(name))
    return found


def must_lock(session: Session, name: str) -> RuntimeRow:
    """Return the locked row of a runtime.

    Raises:
        NotFound: there is no such runtime.
    """
    row = find_locked(session, name)
    if row is None:
        raise unknown(name)
    return row


def unknown(name: str) -> NotFound:
    return NotFound(
        f"there is no runtime named {name[:63]!r}; `airflow remote runtimes list` shows all runtimes, "
        f"and `airflow remote runtimes build {name[:63]}` makes one"
    )


def _locking(name: str) -> Any:
    query = select(RuntimeRow).where(RuntimeRow.name == name).with_for_update()
    return query.execution_options(populate_existing=True)


def note_change(session: Session, row: RuntimeRow | ReleaseRow, by: str) -> None:
    """Note who changed a runtime or the release, and wake the API processes, which have the row in memory."""
    row.updated_at, row.updated_by = database_now(session), by[:250]
    session.flush()
    wake(session, Topic.RUNTIME)


def add(session: Session, name: str, recipe: Recipe, built: Sequence[Built], *, built_with: Mapping[str, str], by: str) -> int:
    """Publish trees as the editions of a new serial, which is rolled out to all workers if it is the first. Return the serial.

    Raises:
        LedgerError: the name or a platform is not valid, a platform is named twice, or nothing was built.
        TreeGone, BlobsMissing: as :func:`.trees.finish_tree`; nothing has changed.
    """
    check_platforms([one.platform for one in built])
    row = lock(session, name)
    finish_trees(session, built, f"build the runtime {name!r} again")
    row.built += 1
    publish(session, name, row.built, {one.platform: one.tree for one in built})
    row.recipe, row.built_with = _packed(recipe), dict(built_with)
    if row.serial == 0:
        row.serial, row.previous, row.percent, row.labels, row.halted = row.built, 0, 100, None, ""
    platforms = ", ".join(sorted(one.platform for one in built))
    record_action(session, by, f"built serial {row.built} of the runtime {name} for {platforms}")
    note_change(session, row, by)
    return row.built


def finish_trees(session: Session, built: Sequence[Built], remedy: str) -> None:
    """Note that all blobs of these trees are stored, and lock the trees.

    Raises:
        TreeGone, BlobsMissing: as :func:`.trees.finish_tree`.
    """
    for one in sorted(built, key=lambda one: one.tree):  # locks the trees in one order
        tree = load_tree(session, one.tree)
        if tree is None:
            raise TreeGone(f"tree {one.tree[:12]} was not begun, or too long ago; {remedy}")
        finish_tree(session, tree)


def publish(session: Session, name: str, serial: int, trees: Mapping[str, str], *, kind: str = RUNTIME) -> None:
    """Add the editions of a serial: digests of trees that are locked, by platform."""
    now = database_now(session)
    session.add_all(
        Edition(
            kind=kind,
            name=name,
            version=str(serial),
            platform=platform,
            tree=digest,
            published_at=now,
            scanned_at=None,
            wanted_at=None,
            trouble="",
        )
        for platform, digest in sorted(trees.items())
    )
    session.flush()


def check_platforms(platforms: Sequence[str]) -> None:
    """Raises: LedgerError: no platform is named, one is not valid, or one is named twice."""
    if not platforms:
        raise LedgerError("nothing was built: name at least one platform, such as cp311-linux-gnu-x86_64")
    for platform in platforms:
        try:
            known = str(Platform.parse(platform))
        except BadPlatform as error:
            raise LedgerError(str(error)) from None
        if known != platform:
            raise LedgerError(f"{platform!r} is not how this platform is written; write {known}")
    twice = [platform for platform, times in Counter(platforms).items() if times > 1]
    if twice:
        raise LedgerError(f"{twice[0]} was built twice for one serial; name each platform once")


def set_recipe(session: Session, name: str, recipe: Recipe, *, by: str) -> None:
    """Store how the runtime is to be built from now on, without a build."""
    row = lock(session, name)
    row.recipe = _packed(recipe)
    record_action(session, by, f"changed the recipe of the runtime {name}")
    note_change(session, row, by)


def fleet_platforms(session: Session) -> Counter[str]:
    """Return how many workers take runtimes from central, by platform. Removed and revoked workers are not counted."""
    query = select(Worker.facts, Worker.capabilities).where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
    return Counter(
        platform
        for facts, capabilities in session.execute(query)
        if Capability.RUNTIMES.value in (capabilities or ()) and (platform := (facts or {}).get("platform", ""))
    )


def get(session: Session, name: str) -> RuntimeRecord | None:
    """Return a runtime with its editions; None if no runtime has that name."""
    row = session.get(RuntimeRow, name, populate_existing=True)
    return None if row is None else _record(row, editions(session, name).get(name, ()))


def list_all(session: Session) -> list[RuntimeRecord]:
    """Return all runtimes with their editions, by name. Two statements."""
    by_name = editions(session)
    rows = session.scalars(select(RuntimeRow).order_by(RuntimeRow.name))
    return [_record(row, by_name.get(row.name, ())) for row in rows]


def editions(session: Session, name: str | None = None, *, kind: str = RUNTIME) -> dict[str, tuple[RuntimeEdition, ...]]:
    """Return the editions of all runtimes, or of one, by name; the newest serial first. Likewise of releases."""
    query = (
        select(Edition.name, Edition.version, Edition.platform, Edition.tree, Edition.published_at, TreeRow.files, TreeRow.bytes)
        .join(TreeRow, TreeRow.digest == Edition.tree)
        .where(Edition.kind == kind)
    )
    if name is not None:
        query = query.where(Edition.name == name)
    found: dict[str, list[RuntimeEdition]] = {}
    for row in session.execute(query):
        found.setdefault(row.name, []).append(
            RuntimeEdition(int(row.version), row.platform, row.tree, row.files, row.bytes, row.published_at)
        )
    return {one: tuple(sorted(some, key=lambda edition: (-edition.serial, edition.platform))) for one, some in found.items()}


def names(session: Session) -> list[str]:
    return list(session.scalars(select(RuntimeRow.name).order_by(RuntimeRow.name)))


def _record(row: RuntimeRow, some: tuple[RuntimeEdition, ...]) -> RuntimeRecord:
    return RuntimeRecord(
        name=row.name,
        recipe=_unpacked(row.recipe),
        serial=row.serial,
        previous=row.previous,
        built=row.built,
        percent=row.percent,
        labels=row.labels,
        halted=row.halted,
        built_with=dict(row.built_with),
        updated_at=row.updated_at,
        updated_by=row.updated_by,
        trouble=row.trouble,
        editions=some,
    )


def _packed(recipe: Recipe) -> dict[str, object]:
    return {**asdict(recipe), "platforms": list(recipe.platforms), "env": dict(recipe.env)}


def _unpacked(stored: Mapping[str, object]) -> Recipe:
    """Return a stored recipe. A field that it lacks, because it is newer, has its default."""
    known = {name: value for name, value in stored.items() if name in Recipe.__dataclass_fields__}
    if "platforms" in known:
        known["platforms"] = tuple(known["platforms"])  # type: ignore[arg-type]
    return Recipe(**known)  # type: ignore[arg-type]


def rollout_of(row: Any) -> Rollout:
    """Return the rollout of the row of a runtime or of the release."""
    return Rollout(row.serial, row.previous, row.percent, row.labels, row.halted, row.built)


def plan_versions(session: Session) -> frozenset[Version]:
    """Return what the plan is made from (runtimes, queues that name one, the release), and when it was changed. One statement."""
    of_runtimes = select(literal("runtime").label("what"), RuntimeRow.name.label("name"), RuntimeRow.updated_at.label("at"))
    of_queues = select(literal("queue"), Queue.name, Queue.changed_at).where(Queue.runtime.is_not(None))
    of_release = select(literal("release"), ReleaseRow.name, ReleaseRow.updated_at)
    return frozenset((row.what, row.name, row.at) for row in session.execute(union_all(of_runtimes, of_queues, of_release)))


def load_plan(session: Session) -> Plan:
    """Return the plan by which runtimes and releases are assigned to workers. Five small statements, six with releases.

    The versions are read first: a change that commits meanwhile is found by the next :func:`plan_versions`.
    """
    versions = plan_versions(session)
    columns = (
        RuntimeRow.name,
        RuntimeRow.serial,
        RuntimeRow.previous,
        RuntimeRow.percent,
        RuntimeRow.labels,
        RuntimeRow.halted,
        RuntimeRow.built,
    )
    rollouts = {row.name: rollout_of(row) for row in session.execute(select(*columns))}
    by_name = {name: trees_of(some) for name, some in editions(session).items()}
    return Plan(rollouts, by_name, named_by_queues(session), _release_plan(session), versions)


def trees_of(some: Iterable[RuntimeEdition]) -> dict[int, dict[str, TreeRef]]:
    """Return the trees of editions of one name, by serial and platform."""
    found: dict[int, dict[str, TreeRef]] = {}
    for one in some:
        found.setdefault(one.serial, {})[one.platform] = TreeRef(one.tree, one.files, one.bytes)
    return found


def _release_plan(session: Session) -> ReleasePlan:
    row = session.get(ReleaseRow, WORKER, populate_existing=True)
    if row is None:
        return ReleasePlan()
    some = editions(session, WORKER, kind=RELEASE).get(WORKER, ())
    return ReleasePlan(rollout_of(row), trees_of(some), row.versions)


def named_by_queues(session: Session) -> dict[str, str]:
    """Return the names of runtimes by the queues whose rule names one."""
    rows = session.execute(select(Queue.name, Queue.runtime).where(Queue.runtime.is_not(None)))
    return {row.name: row.runtime for row in rows}
