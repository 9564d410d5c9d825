"""Support for tests of the ledger: separate Airflow settings, a stand-in for Airflow's tables, functions that add rows.

Import this before any module of Airflow: it gives Airflow a temporary home directory.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, TypeVar

_HOME = tempfile.mkdtemp(prefix="remote-provider-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    # Nothing publishes here: jobs must not wait for a first publication.
    AIRFLOW__REMOTE__PUBLISH="off",
    AIRFLOW__API_AUTH__JWT_SECRET="a secret of these tests, long enough for HS512 without a warning",
)


import pytest  # noqa: E402
from airflow_remote_protocol.messages import Enrolment, Facts, HeldJob, JobKind, SessionRequest  # noqa: E402
from airflow_remote_provider import compat  # noqa: E402
from airflow_remote_provider.compat import UtcDateTime  # noqa: E402
from airflow_remote_provider.ledger import credentials, dispatch, jobs, leases, sessions  # noqa: E402
from airflow_remote_provider.ledger.assignments import Plan  # noqa: E402
from airflow_remote_provider.ledger.audit import AuditKind  # noqa: E402
from airflow_remote_provider.ledger.capacity import Claimant  # noqa: E402
from airflow_remote_provider.ledger.credentials import NewToken  # noqa: E402
from airflow_remote_provider.ledger.dispatch import Claimed  # noqa: E402
from airflow_remote_provider.ledger.fence import WorkerLease  # noqa: E402
from airflow_remote_provider.ledger.views.audit import AuditFilter, AuditRow, list_entries  # noqa: E402
from airflow_remote_provider.models import Base, Job, Worker, WorkerContact  # noqa: E402
from airflow_remote_provider.sqlite_lock import BEGIN  # noqa: E402
from sqlalchemy import Engine, String, Text, Uuid, create_engine, event, update  # noqa: E402
from sqlalchemy.exc import OperationalError  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column  # noqa: E402
from sqlalchemy.pool import NullPool  # noqa: E402

T = TypeVar("T")


class AirflowBase(DeclarativeBase):
    pass


class TaskInstance(AirflowBase):
    """The columns of Airflow's table that our code uses. e2e uses the real table."""

    __tablename__ = "task_instance"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    state: Mapped[str | None] = mapped_column(String(20))
    external_executor_id: Mapped[str | None] = mapped_column(Text)
    last_heartbeat_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    dag_id: Mapped[str | None] = mapped_column(Text)
    run_id: Mapped[str | None] = mapped_column(Text)
    queue: Mapped[str | None] = mapped_column(Text)
    executor: Mapped[str | None] = mapped_column(Text)
    trigger_id: Mapped[int | None]
    scheduled_dttm: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Trigger(AirflowBase):
    __tablename__ = "trigger"

    id: Mapped[int] = mapped_column(primary_key=True)
    queue: Mapped[str | None] = mapped_column(Text)
    created_date: Mapped[datetime] = mapped_column(UtcDateTime)
    classpath: Mapped[str] = mapped_column(Text, default="")
    kwargs: Mapped[str] = mapped_column(Text, default="{}")

    @classmethod
    def clean_unused(cls) -> None:
        """Replace Airflow's method; delete nothing."""


class DagRun(AirflowBase):
    __tablename__ = "dag_run"

    id: Mapped[int] = mapped_column(primary_key=True)
    dag_id: Mapped[str] = mapped_column(Text)
    run_id: Mapped[str] = mapped_column(Text)


class Callback(AirflowBase):
    __tablename__ = "callback"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    state: Mapped[str | None] = mapped_column(String(20))


class ConnectionTest(AirflowBase):
    __tablename__ = "connection_test_request"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    state: Mapped[str | None] = mapped_column(String(20))
    result_message: Mapped[str | None] = mapped_column(Text)


def make_engine(url: str) -> Engine:
    """Return an engine on *url*, configured as Airflow configures its own, and create all tables."""
    if url.startswith("sqlite"):
        engine = create_engine(url, poolclass=NullPool)
        event.listen(engine, "connect", _set_sqlite_options)
    elif url.startswith("mysql"):
        engine = create_engine(url, isolation_level="READ COMMITTED")
        event.listen(engine, "connect", _set_utc)
    else:
        engine = create_engine(url)
    Base.metadata.create_all(engine)
    AirflowBase.metadata.create_all(engine)
    return engine


def _set_sqlite_options(connection: sqlite3.Connection, _record: object) -> None:
    """Set Airflow's own options for SQLite, and don't wait for the disk: tests need no durability."""
    for pragma in ("foreign_keys=ON", "journal_mode=WAL", "synchronous=OFF"):
        connection.execute(f"PRAGMA {pragma}")


def _set_utc(connection: Any, _record: object) -> None:
    """Set Airflow's own option for MySQL."""
    with connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")


def empty_tables(engine: Engine) -> None:
    """Delete every row of every table."""
    with engine.begin() as connection:
        for table in (*Base.metadata.sorted_tables, *AirflowBase.metadata.sorted_tables):
            connection.execute(table.delete())


COMPAT = [compat.__name__, *(f"{compat.__name__}.{found.name}" for found in iter_modules(compat.__path__))]


def substitute(patch: pytest.MonkeyPatch, name: str, replacement: object) -> None:
    """Replace `compat.<name>` by *replacement* in the package `compat` and in all of its modules that are loaded."""
    for module in filter(None, map(sys.modules.get, COMPAT)):
        if hasattr(module, name):
            patch.setattr(module, name, replacement)


@contextmanager
def use_ledger(engine: Engine, logs: Path) -> Iterator[None]:
    """Let all of the provider's code use *engine* and *logs*."""

    def log_file(path: str) -> Path:
        file = logs / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    with pytest.MonkeyPatch.context() as patch:
        substitute(patch, "engine", lambda: engine)
        substitute(patch, "task_instance_model", lambda: TaskInstance)
        substitute(patch, "trigger_model", lambda: Trigger)
        substitute(patch, "end_waiting", _end_waiting)
        substitute(patch, "parsed_sources", lambda session, dag_version_ids: {})
        substitute(patch, "known_bundles", lambda session: [])
        substitute(patch, "parsed_dag_files", lambda session, name: [])
        substitute(patch, "dag_run_model", lambda: DagRun)
        substitute(patch, "callback_model", lambda: Callback)
        substitute(patch, "connection_test_model", lambda: ConnectionTest)
        substitute(patch, "base_log_folder", lambda: logs)
        substitute(patch, "log_file", log_file)
        yield


def _end_waiting(session: Session, ti_id: uuid.UUID, trigger_id: int, *, state: str, xcoms: Mapping[str, Any]) -> bool:
    """Do what Airflow does when a trigger ends its task, as far as the stand-in has the columns."""
    waiting = (TaskInstance.id == ti_id, TaskInstance.state == "deferred", TaskInstance.trigger_id == trigger_id)
    ended = session.execute(update(TaskInstance).where(*waiting).values(state=state, trigger_id=None))
    return bool(ended.rowcount)  # type: ignore[attr-defined]


def new_job(queue: str = "q", **changes: object) -> jobs.NewJob:
    """Return a job as the executor submits it."""
    values: dict[str, object] = {
        "job_id": str(uuid.uuid4()),
        "kind": JobKind.TASK,
        "queue": queue,
        "team": None,
        "priority": 1,
        "slots": 1,
        "owner": "1/",
        "ti_id": uuid.uuid4(),
        "dag_id": "dag",
        "run_id": "run",
        "task_id": "task",
        "map_index": -1,
        "try_number": 1,
        "workload": "{}",
        "log_path": f"{uuid.uuid4()}.log",
        "lost_after_s": 3600.0,
    }
    return jobs.NewJob(**{**values, **changes})  # type: ignore[arg-type]


def queue_job(session: Session, queue: str = "q", *, with_task: bool = True, **changes: object) -> jobs.NewJob:
    """Queue a job and add its task instance to Airflow's table."""
    job = new_job(queue, **changes)
    if with_task:
        session.add(TaskInstance(id=job.ti_id, state="queued", external_executor_id=job.job_id))
    jobs.enqueue(session, [job])
    return job


# Workers and leases, made by the ledger's own functions


@dataclass(frozen=True)
class Enlisted:
    """A worker with an open session, and its credential."""

    id: str
    name: str
    session_id: str
    credential: str
    slots: int

    def claimant(self, free_slots: int | None = None, *, triggers: int = 0) -> Claimant:
        return Claimant(self.id, self.session_id, self.slots if free_slots is None else free_slots, triggers)

    def lease(self, claimed: Claimed) -> WorkerLease:
        return WorkerLease(self.id, claimed.job_id, claimed.epoch)


def session_request(
    slots: int = 4,
    *,
    instance_id: str = "instance",
    boot_id: str = "",
    jobs: Sequence[HeldJob] = (),
    capabilities: Sequence[str] = ("task",),
    time: float = 0.0,
    triggers: int = 0,
    platform: str = "",
    ephemeral: bool = False,
    max_jobs: int | None = None,
) -> SessionRequest:
    """Return the session request of a daemon that has just started, or of the one with *boot_id*."""
    boot_id = boot_id or str(uuid.uuid4())
    facts = Facts(hostname="h", platform=platform, release_platform=platform)
    return SessionRequest(
        instance_id, boot_id, "1.0", list(capabilities), slots, facts, list(jobs), time, triggers, ephemeral, max_jobs
    )


def enlist(
    name: str = "worker",
    queues: Sequence[str] = ("q",),
    *,
    slots: int = 4,
    team: str | None = None,
    labels: Mapping[str, str] | None = None,
    bundles: Sequence[str] | None = None,
    capabilities: Sequence[str] = ("task",),
    triggers: int = 0,
    platform: str = "",
    ephemeral: bool = False,
    max_jobs: int | None = None,
) -> Enlisted:
    """Enrol a worker and open its session, in separate transactions."""
    with compat.transaction() as session:
        token, _ = credentials.create_token(session, NewToken(list(queues), team=team, labels=labels or {}, bundles=bundles))
    with compat.transaction() as session:
        enrolled = credentials.enrol(session, token, Enrolment(name))
    with compat.transaction() as session:
        request = session_request(
            slots, capabilities=capabilities, triggers=triggers, platform=platform, ephemeral=ephemeral, max_jobs=max_jobs
        )
        record = sessions.open_session(session, enrolled.worker_id, request)
    assert record.session_id is not None
    return Enlisted(enrolled.worker_id, name, record.session_id, enrolled.credential, slots)


def queued(queue: str = "q", *, with_task: bool = True, **changes: object) -> jobs.NewJob:
    """Call :func:`queue_job` in a separate transaction."""
    with compat.transaction() as session:
        return queue_job(session, queue, with_task=with_task, **changes)


def claim(*claimants: Claimant, patience: timedelta = timedelta(minutes=1), plan: Plan | None = None) -> list[Claimed]:
    with compat.transaction() as session:
        demand = dispatch.demand(session)
        deadline = timedelta(seconds=30)
        return dispatch.claim(session, claimants, demand, deadline=deadline, patience=patience, plan=plan or Plan())


def offered(worker: Enlisted, queue: str = "q", **changes: object) -> WorkerLease:
    """Queue a job and offer it to *worker*; no other job that it could get may be queued."""
    job = queued(queue, **changes)
    (claimed,) = claim(worker.claimant())
    assert claimed.job_id == job.job_id
    return worker.lease(claimed)


def running(worker: Enlisted, queue: str = "q", **changes: object) -> WorkerLease:
    """Queue a job, offer it to *worker*, accept it and set its task to running; return the lease."""
    lease = offered(worker, queue, **changes)
    with compat.transaction() as session:
        subject = leases.accept(session, lease)
        session.execute(update(TaskInstance).where(TaskInstance.id == subject.id).values(state="running"))
    return lease


def job_row(job_id: str) -> Job:
    with compat.transaction() as session:
        job = session.get(Job, job_id)
    assert job is not None, f"no job {job_id}"
    return job


def worker_row(worker_id: str) -> Worker:
    with compat.transaction() as session:
        worker = session.get(Worker, worker_id)
    assert worker is not None, f"no worker {worker_id}"
    return worker


def audit_entries(*kind: AuditKind | str, **only: str) -> list[AuditRow]:
    """Return the audit's entries, filtered by *kind* if given; *only* as in :class:`AuditFilter`."""
    wanted = AuditFilter(kind=[AuditKind(one).value for one in kind], **only)  # type: ignore[arg-type]
    with compat.transaction() as session:
        return list_entries(session, only=wanted).rows


def change_job(job_id: str, **values: object) -> None:
    """Set columns of a job, for example to the values that it has after a crash or a long time."""
    with compat.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def change_worker(worker_id: str, **values: object) -> None:
    with compat.transaction() as session:
        session.execute(update(Worker).where(Worker.id == worker_id).values(**values))


def change_task(ti_id: uuid.UUID | None, **values: object) -> None:
    """Change Airflow's task instance, as a user or the scheduler does."""
    with compat.transaction() as session:
        session.execute(update(TaskInstance).where(TaskInstance.id == ti_id).values(**values))


def set_last_seen(worker_id: str, at: datetime | None) -> None:
    """Set the time of a worker's last contact."""
    with compat.transaction() as session:
        session.execute(update(WorkerContact).where(WorkerContact.worker_id == worker_id).values(last_seen_at=at))


def ago(**since: float) -> datetime:
    return datetime.now(timezone.utc) - timedelta(**since)


@contextmanager
def record_statements(engine: Engine) -> Iterator[list[str]]:
    """Yield a list of the statements that *engine* runs. A BEGIN is not counted: only on SQLite is it sent as a statement."""
    statements: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement != BEGIN:
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


# Functions that run in other processes

OFFER = tuple[str, int, str]
"""A job, its epoch, and the worker that it was offered to."""

_start: Barrier


def _set_barrier(start: Barrier) -> None:
    global _start
    _start = start


class Claimers:
    """Processes that claim at the same time, each with its own connections. They start at first use and end with the session."""

    def __init__(self, count: int = 3) -> None:
        context = multiprocessing.get_context("spawn")
        self._count = count
        self._pool = ProcessPoolExecutor(count, context, initializer=_set_barrier, initargs=(context.Barrier(count),))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def claim(self, url: str, claimants: Sequence[Claimant], *, rounds: int = 1) -> list[OFFER]:
        """Claim for all *claimants* in every process; return all offers.

        A single round continues until no job is left. With several rounds, the offers of each round are withdrawn at its end, so
        that the jobs are queued again for the next one.
        """
        made = [self._pool.submit(_claim_here, url, list(claimants), rounds) for _ in range(self._count)]
        return [offer for some in made for offer in some.result(timeout=120)]


def _claim_here(url: str, claimants: list[Claimant], rounds: int) -> list[OFFER]:
    engine = make_engine(url)
    made: list[OFFER] = []
    with use_ledger(engine, Path(_HOME)):
        _start.wait(120)
        for _ in range(rounds):
            while claimed := _retry_while_locked(lambda: claim(*claimants)):
                made += [(job.job_id, job.epoch, job.worker_id) for job in claimed]
                if rounds > 1:
                    _retry_while_locked(partial(_withdraw, claimed))
                    break
    engine.dispose()
    return made


def _withdraw(claimed: Sequence[Claimed]) -> None:
    with compat.transaction() as session:
        leases.withdraw(session, [WorkerLease(job.worker_id, job.job_id, job.epoch) for job in claimed])


def _retry_while_locked(work: Callable[[], T]) -> T:
    """Retry while SQLite is locked for longer than its timeout, as the dispatcher does."""
    while True:
        try:
            return work()
        except OperationalError:
            continue
