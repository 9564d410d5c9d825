"""Runtimes from central as users see them: what is built and rolled out, and which workers have which of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from airflow_remote_protocol.messages import RuntimePhase
from airflow_remote_protocol.version import Capability
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from airflow_remote_provider.definitions.needs import pairs_of
from airflow_remote_provider.ledger import runtimes
from airflow_remote_provider.ledger.assignments import Assignment, Host, Plan, assign, host_of
from airflow_remote_provider.ledger.held_runtimes import Held, explain_name
from airflow_remote_provider.ledger.runtimes import RuntimeRecord
from airflow_remote_provider.ledger.statements import SignedStatement, of_trees
from airflow_remote_provider.ledger.sweep import OPEN
from airflow_remote_provider.ledger.trees import RUNTIME
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import Edition, Job, Worker

MOST_WORKERS = 1000
"""Workers that are listed with a runtime; those that lack it come first."""
MISSING, WAITING = "missing", "waiting"
"""Phases beside those of :class:`RuntimePhase`: there is no runtime for the worker; it has not begun to prepare it."""


@dataclass(frozen=True)
class RuntimeSummary:
    """One runtime as the API and the CLI show it."""

    name: str
    serial: int
    """The serial that is rolled out; 0: none yet."""
    previous: int
    """The serial of the workers that are not to have the rolled one; 0: none."""
    built: int
    """The newest serial; 0: nothing was built yet."""
    percent: int
    """Share of the workers with these labels that are to have the rolled serial."""
    labels: dict[str, str]
    """Empty: all workers."""
    halted: str
    """Why the rollout is halted; empty: it is not."""
    trouble: str
    """Why the last build failed, for one platform or for all; empty: it did not fail."""
    platforms: list[str]
    """For which it is built, in any serial."""
    queues: list[str]
    """Queues with a rule that names it. The runtime `default` is for all other queues, too."""
    workers: int
    """Workers that are to have it."""
    ready: int
    """Workers that have the serial ready that they are to have."""
    preparing: int
    failed: int
    missing: int
    """Workers for whose platform nothing is built."""
    follow: bool
    """Whether it is built again when central's versions have changed."""
    built_with: dict[str, str]
    """Central's versions at the newest build: `airflow`, `task_sdk`, `provider`."""
    updated_at: datetime
    updated_by: str


@dataclass(frozen=True)
class RuntimeEditionRow:
    """The tree of one serial for one platform."""

    serial: int
    platform: str
    tree: str
    files: int
    bytes: int
    published_at: datetime
    ready: int
    """Workers that have it ready."""
    jobs: int
    """Open jobs that run in it."""


@dataclass(frozen=True)
class RuntimeWorkerRow:
    """One worker and the runtime that it is to have."""

    worker: str
    platform: str
    serial: int | None
    """The serial that it is to have; None: no serial is for its platform."""
    phase: str
    """`ready`, `preparing`, `failed`; `waiting`: it has not begun; `missing`: nothing is built for its platform."""
    ready_serials: list[int]
    """All serials that it has ready."""
    airflow: str
    """As the worker reported it; empty until it is ready. So are the following two."""
    task_sdk: str
    python: str
    detail: str
    """Progress, or why it is not usable and what to do."""


@dataclass(frozen=True)
class RuntimeDetails:
    """One runtime with its recipe, what is built of it, and its workers."""

    about: RuntimeSummary
    requirements: str
    env: dict[str, str]
    wanted_platforms: list[str]
    """For which the recipe builds it."""
    build_sdists: bool
    editions: list[RuntimeEditionRow]
    """The newest serial first."""
    workers: list[RuntimeWorkerRow]
    """Those that do not have it ready come first; at most 1,000."""
    statements: list[SignedStatement]
    """What was signed about these trees, as the statements say themselves."""


@dataclass(frozen=True)
class _Fleet:
    """The workers within the user's scope that take runtimes from central."""

    plan: Plan
    hosts: Mapping[str, Host]
    """By the worker's name."""
    held: Mapping[str, Sequence[Held]]
    assigned: Mapping[str, Assignment]

    def rows_of(self, name: str) -> list[RuntimeWorkerRow]:
        """Return the workers whose queues need the runtime *name*."""
        return [
            self._row(worker, name)
            for worker, host in self.hosts.items()
            if name in {self.plan.name_for(queue) for queue in host.queues}
        ]

    def _row(self, worker: str, name: str) -> RuntimeWorkerRow:
        host, assigned = self.hosts[worker], self.assigned[worker]
        ref = next((one for one in assigned.wanted if one.name == name), None)
        mine: Held = next((one for one in self.held[worker] if ref is not None and one["tree"] == ref.tree.digest), {})
        editions = self.plan.editions.get(name, {})
        ready = sorted(
            serial for serial, some in editions.items() if host.platform in some and some[host.platform].digest in host.ready
        )
        phase = mine.get("phase", MISSING if ref is None else WAITING)
        if mine.get("mismatch"):
            phase = RuntimePhase.FAILED.value
        is_ready = phase == RuntimePhase.READY.value
        return RuntimeWorkerRow(
            worker=worker,
            platform=host.platform,
            serial=None if ref is None else ref.serial,
            phase=phase,
            ready_serials=ready,
            airflow=mine.get("airflow", ""),
            task_sdk=mine.get("task_sdk", ""),
            python=mine.get("python", ""),
            detail=mine["detail"] if is_ready else explain_name(self.plan, host, self.held[worker], name),
        )


def list_runtimes(session: Session, *, scope: Scope = EVERYTHING) -> list[RuntimeSummary]:
    """Return all runtimes, by name. Seven statements."""
    fleet = _read_fleet(session, scope)
    return [_summary(record, fleet, fleet.rows_of(record.name)) for record in runtimes.list_all(session)]


def show_runtime(session: Session, name: str, *, scope: Scope = EVERYTHING) -> RuntimeDetails:
    """Return one runtime.

    Raises:
        NotFound: there is no such runtime.
    """
    record = runtimes.get(session, name)
    if record is None:
        raise runtimes.unknown(name)
    fleet = _read_fleet(session, scope)
    rows = fleet.rows_of(name)
    jobs = _jobs(session, [edition.tree for edition in record.editions])
    ready = Counter(tree for host in fleet.hosts.values() for tree in host.ready)
    return RuntimeDetails(
        about=_summary(record, fleet, rows),
        requirements=record.recipe.requirements,
        env=dict(record.recipe.env),
        wanted_platforms=list(record.recipe.platforms),
        build_sdists=record.recipe.build_sdists,
        editions=[
            RuntimeEditionRow(
                serial=one.serial,
                platform=one.platform,
                tree=one.tree,
                files=one.files,
                bytes=one.bytes,
                published_at=one.published_at,
                ready=ready[one.tree],
                jobs=jobs.get(one.tree, 0),
            )
            for one in record.editions
        ],
        workers=sorted(rows, key=lambda row: (row.phase == RuntimePhase.READY.value, row.worker))[:MOST_WORKERS],
        statements=of_trees(session, {edition.tree for edition in record.editions}),
    )


def teams_with_runtimes(session: Session) -> list[str | None]:
    """Return the teams of the workers that take runtimes from central; None: workers without a team."""
    query = select(Worker.team, Worker.capabilities).where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
    teams = {team for team, capabilities in session.execute(query) if Capability.RUNTIMES.value in (capabilities or ())}
    return sorted(teams, key=lambda team: team or "")


def count_phases(session: Session) -> dict[tuple[str, int, str], int]:
    """Return how many workers have each runtime that they are to have in each phase: by name, serial (0: none) and phase."""
    fleet = _read_fleet(session, EVERYTHING)
    names = {fleet.plan.name_for(queue) for host in fleet.hosts.values() for queue in host.queues}
    return dict(Counter((name, row.serial or 0, row.phase) for name in sorted(names) for row in fleet.rows_of(name)))


def _read_fleet(session: Session, scope: Scope) -> _Fleet:
    columns = (
        Worker.id,
        Worker.name,
        Worker.queues,
        Worker.labels,
        Worker.facts,
        Worker.capabilities,
        Worker.runtimes,
    )
    query = select(*columns).where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None), scope.sees_team(Worker.team))
    plan = runtimes.load_plan(session)
    hosts: dict[str, Host] = {}
    held: dict[str, Sequence[Held]] = {}
    for row in session.execute(query.order_by(Worker.name)):
        host = host_of(row)
        if host is not None:
            hosts[row.name], held[row.name] = host, row.runtimes or ()
    return _Fleet(plan, hosts, held, {name: assign(plan, host) for name, host in hosts.items()})


def _summary(record: RuntimeRecord, fleet: _Fleet, rows: Sequence[RuntimeWorkerRow]) -> RuntimeSummary:
    phases = Counter(row.phase for row in rows)
    return RuntimeSummary(
        name=record.name,
        serial=record.serial,
        previous=record.previous,
        built=record.built,
        percent=record.percent,
        labels=dict(pairs_of(record.labels)) if record.labels else {},
        halted=record.halted,
        trouble=record.trouble,
        platforms=sorted({edition.platform for edition in record.editions}),
        queues=sorted(queue for queue, name in fleet.plan.queues.items() if name == record.name),
        workers=len(rows),
        ready=phases[RuntimePhase.READY.value],
        preparing=phases[RuntimePhase.PREPARING.value] + phases[WAITING],
        failed=phases[RuntimePhase.FAILED.value],
        missing=phases[MISSING],
        follow=record.recipe.follow,
        built_with=dict(record.built_with),
        updated_at=record.updated_at,
        updated_by=record.updated_by,
    )


def _jobs(session: Session, digests: Collection[str]) -> dict[str, int]:
    query = select(Job.runtime, func.count()).where(Job.state.in_(OPEN), Job.runtime.in_(list(digests))).group_by(Job.runtime)
    return {tree or "": count for tree, count in session.execute(query)} if digests else {}


@dataclass(frozen=True)
class HeldRuntimeRow:
    """A runtime from central that a worker has reported."""

    name: str
    serial: int
    phase: str
    """`preparing`, `ready` or `failed`."""
    airflow: str
    task_sdk: str
    python: str
    detail: str
    """Progress, or why it is not usable."""


def held_by(session: Session, reports: Mapping[str, Sequence[Held] | None]) -> dict[str, list[HeldRuntimeRow]]:
    """Return what workers have reported, by worker, the newest serial first. One statement, and none without reports."""
    trees = {one["tree"] for some in reports.values() for one in some or ()}
    if not trees:
        return {}
    query = select(Edition.tree, Edition.name, Edition.version).where(Edition.kind == RUNTIME, Edition.tree.in_(trees))
    found: dict[str, tuple[str, int]] = {}
    for row in session.execute(query.order_by(Edition.id)):  # of several serials with the same tree, the newest
        found[row.tree or ""] = row.name, int(row.version)
    shown: dict[str, list[HeldRuntimeRow]] = {}
    for worker, some in reports.items():
        rows = [_held_row(one, *found[one["tree"]]) for one in some or () if one["tree"] in found]
        shown[worker] = sorted(rows, key=lambda row: (row.name, -row.serial))
    return shown


def _held_row(one: Held, name: str, serial: int) -> HeldRuntimeRow:
    return HeldRuntimeRow(
        name=name,
        serial=serial,
        phase=RuntimePhase.FAILED.value if one["mismatch"] else one["phase"],
        airflow=one["airflow"],
        task_sdk=one["task_sdk"],
        python=one["python"],
        detail=one["mismatch"] or one["detail"],
    )
