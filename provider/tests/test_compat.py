"""Transactions on each database: locked rows don't change, and plain reads don't wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, event, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from testkit.ledger import record_statements, enlist, job_row, queued, worker_row  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import dispatch, duty, ended_tasks, jobs, queues
from airflow_remote_provider.models import Job, Worker

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    """Return a pool of threads, each with its own connections."""
    with ThreadPoolExecutor(6) as pool:
        yield pool


def _locked(session: Session, worker_id: str) -> Worker:
    return session.scalars(select(Worker).where(Worker.id == worker_id).with_for_update()).one()


def test_no_update_is_lost_between_a_locking_read_and_its_write(others: ThreadPoolExecutor) -> None:
    worker, start = enlist(slots=0), threading.Barrier(6)

    def add(session: Session) -> None:
        _locked(session, worker.id).slots += 1

    def add_ten() -> None:
        start.wait(10)
        for _ in range(10):
            compat.in_transaction(add)

    for done in [others.submit(add_ten) for _ in range(6)]:
        done.result(60)
    assert worker_row(worker.id).slots == 60


@pytest.mark.parametrize("read", [dispatch.demand, duty.check_open_jobs, ended_tasks.stop_ended, queues.depths])
def test_a_plain_read_does_not_wait_for_a_locked_row(read: object, others: ThreadPoolExecutor) -> None:
    job = queued()
    with compat.transaction() as session:
        session.scalars(select(Job).where(Job.id == job.job_id).with_for_update()).one().priority = 7
        session.flush()
        others.submit(compat.in_transaction, read).result(20)  # type: ignore[arg-type]


def test_a_failure_undoes_what_came_before_and_after_a_savepoint() -> None:
    worker = enlist(slots=0)
    with pytest.raises(ZeroDivisionError), compat.transaction() as session:
        with session.begin_nested():
            session.execute(update(Worker).values(slots=1))
        session.execute(update(Worker).values(slots=Worker.slots + 1))
        raise ZeroDivisionError
    assert worker_row(worker.id).slots == 0


def test_airflows_own_sessions_lock_as_before(database: Engine) -> None:
    with record_statements(database) as ours, compat.transaction() as session:
        session.execute(select(Job).with_for_update())
    sent: list[str] = []
    event.listen(database, "before_cursor_execute", lambda *args: sent.append(args[2]))
    with Session(database) as session:
        session.execute(select(Job).with_for_update())
    assert sent == ours


# Deadlocks


def test_a_transaction_aborted_by_a_deadlock_is_repeated(database: Engine, others: ThreadPoolExecutor) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("with one lock there is no deadlock")
    pair = [enlist(name, slots=0).id for name in ("one", "two")]
    both_hold = threading.Barrier(2)
    tries = []

    def add(order: list[str]) -> None:
        def verb(session: Session) -> None:
            tries.append(order)
            _locked(session, order[0]).slots += 1
            session.flush()
            if len(tries) <= 2:
                both_hold.wait(10)
            _locked(session, order[1]).slots += 1

        compat.in_transaction(verb)

    for done in [others.submit(add, order) for order in (pair, pair[::-1])]:
        done.result(30)
    assert [worker_row(worker_id).slots for worker_id in pair] == [2, 2]
    assert len(tries) == 3, "one of them succeeded at the first try"


def test_a_transaction_that_fails_for_another_reason_is_not_repeated() -> None:
    tries = []

    def verb(session: Session) -> None:
        tries.append(1)
        session.execute(text("SELECT nonsense FROM nowhere"))

    with pytest.raises(Exception, match="nowhere"):
        compat.in_transaction(verb)
    assert len(tries) == 1


# Lock timeouts


def test_a_transaction_with_a_short_lock_timeout_gives_up_and_restores_the_timeout(database: Engine) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite's connections wait as long as Airflow has configured")
    job = queued()
    lock_timeout = text("SHOW lock_timeout" if database.dialect.name == "postgresql" else "SELECT @@innodb_lock_wait_timeout")
    with database.connect() as connection:
        configured = connection.scalar(lock_timeout)
    with compat.transaction() as holder:
        holder.scalars(select(Job).where(Job.id == job.job_id).with_for_update()).one()
        with pytest.raises(OperationalError), compat.transaction(lock_wait_s=1) as session:
            assert session.scalar(lock_timeout) != configured
            jobs.revoke(session, job.job_id)
    assert job_row(job.job_id).state == "queued"
    with database.connect() as one, database.connect() as two:
        assert [connection.scalar(lock_timeout) for connection in (one, two)] == [configured, configured]


def test_each_database_has_its_range_of_dates(database: Engine) -> None:
    expected = compat.MYSQL_TIMESTAMPS if database.dialect.name == "mysql" else None
    assert compat.date_range() == expected
