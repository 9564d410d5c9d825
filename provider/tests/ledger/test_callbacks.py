"""Jobs that are not tasks: the workers that can run them, their queue, their end, and their adoption."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import update

from testkit.ledger import (  # isort: skip
    Callback,
    ConnectionTest,
    DagRun,
    TaskInstance,
    claim,
    enlist,
    job_row,
    new_job,
)

from airflow_remote_protocol.messages import JobKind, Outcome, Report
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import callbacks, jobs, leases

pytestmark = pytest.mark.usefixtures("database")

ALL = ("task", "callback", "connection-test")


def _queue(kind: JobKind, *, state: str | None = "queued", **changes: object) -> str:
    job_id = str(uuid.uuid4())
    model = Callback if kind is JobKind.CALLBACK else ConnectionTest
    with compat.transaction() as session:
        if state is not None:
            session.add(model(id=uuid.UUID(job_id), state=state))
        jobs.enqueue(session, [new_job(job_id=job_id, kind=kind, ti_id=None, **changes)])
    return job_id


@pytest.mark.parametrize("kind", [JobKind.CALLBACK, JobKind.CONNECTION_TEST])
def test_only_a_worker_with_the_capability_is_offered_the_job(kind: JobKind) -> None:
    job_id = _queue(kind)
    assert claim(enlist("old").claimant()) == []
    able = enlist("able", capabilities=["task", kind.value])
    (offer,) = claim(able.claimant())
    assert (offer.job_id, offer.kind) == (job_id, kind.value)


def test_a_job_that_a_worker_cannot_run_does_not_block_others() -> None:
    _queue(JobKind.CALLBACK, priority=9)
    with compat.transaction() as session:
        task = new_job()
        jobs.enqueue(session, [task])
    worker = enlist("old", slots=2)
    assert [offer.job_id for offer in claim(worker.claimant())] == [task.job_id]


@pytest.mark.parametrize("kind", [JobKind.CALLBACK, JobKind.CONNECTION_TEST])
def test_the_calls_of_the_job_are_about_itself(kind: JobKind) -> None:
    job_id = _queue(kind)
    worker = enlist(capabilities=ALL)
    (offer,) = claim(worker.claimant())
    with compat.transaction() as session:
        subject = leases.accept(session, worker.lease(offer))
    assert (subject.kind, subject.id) == (kind, uuid.UUID(job_id))


@pytest.mark.parametrize("kind", [JobKind.CALLBACK, JobKind.CONNECTION_TEST])
@pytest.mark.parametrize(("state", "why"), [(None, "gone"), ("failed", "ended"), ("success", "ended")])
def test_a_job_that_airflow_has_ended_is_taken_back(kind: JobKind, state: str | None, why: str) -> None:
    job_id, wanted = _queue(kind, state=state), _queue(kind, state="running")
    with compat.transaction() as session:
        assert callbacks.stop_ended(session) == 1
    assert (job_row(job_id).state, job_row(job_id).stop_reason) == ("revoked", why)
    assert job_row(wanted).state == "queued"
    with compat.transaction() as session:
        assert callbacks.stop_ended(session) == 0


@pytest.mark.parametrize("kind", [JobKind.CALLBACK, JobKind.CONNECTION_TEST])
@pytest.mark.parametrize(("outcome", "state"), [(Outcome.SUCCEEDED, "succeeded"), (Outcome.STOPPED, "revoked")])
def test_a_job_that_ran_to_its_end_counts_as_reported(kind: JobKind, outcome: Outcome, state: str) -> None:
    job_id, worker = _queue(kind), enlist(capabilities=ALL)
    (offer,) = claim(worker.claimant())
    lease, model = worker.lease(offer), Callback if kind is JobKind.CALLBACK else ConnectionTest
    with compat.transaction() as session:
        leases.accept(session, lease)
        session.execute(update(model).where(model.id == uuid.UUID(job_id)).values(state="success"))
    with compat.transaction() as session:
        assert callbacks.stop_ended(session) == 1, "the worker has not reported yet"
    with compat.transaction() as session:
        leases.report(session, lease, Report(outcome=outcome, exit_code=0))
    assert job_row(job_id).state == state


# The queue of a callback


def _run(tasks: list[tuple[str, str | None]]) -> int:
    """Add a Dag run with a task for each (queue, executor); return its id."""
    with compat.transaction() as session:
        run = DagRun(dag_id="dag", run_id="run")
        session.add(run)
        session.add(
            TaskInstance(id=uuid.uuid4(), dag_id="dag", run_id="another run", queue="elsewhere", executor="RemoteExecutor")
        )
        for queue, executor in tasks:
            session.add(TaskInstance(id=uuid.uuid4(), dag_id="dag", run_id="run", queue=queue, executor=executor))
        session.flush()
        return run.id


@pytest.mark.parametrize(
    ("tasks", "queue"),
    [
        ([], None),
        ([("here", "LocalExecutor"), ("here", None)], None),
        ([("plant", "RemoteExecutor"), ("here", None), ("here", None)], "plant"),
        ([("b", "RemoteExecutor"), ("a", "RemoteExecutor"), ("b", "alias")], "b"),
        ([("b", "RemoteExecutor"), ("a", "RemoteExecutor")], "a"),
    ],
)
def test_a_callback_goes_to_the_queue_of_most_tasks_of_its_run(tasks: list[tuple[str, str | None]], queue: str | None) -> None:
    with compat.transaction() as session:
        assert callbacks.find_queue_of_run(session, _run(tasks), {"RemoteExecutor", "alias"}) == queue


def test_tasks_without_an_executor_belong_to_the_default_executor() -> None:
    with compat.transaction() as session:
        assert callbacks.find_queue_of_run(session, _run([("plant", None)]), {"RemoteExecutor", None}) == "plant"


# Adoption from dead schedulers


def test_a_dead_schedulers_callbacks_are_adopted_by_its_team(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "living_schedulers", lambda _session, ids: {2} & set(ids))
    dead = _queue(JobKind.CALLBACK, owner="1/")
    test = _queue(JobKind.CONNECTION_TEST, owner="1/")
    for other in ("2/", "1/team"):
        _queue(JobKind.CALLBACK, owner=other)
    with compat.transaction() as session:
        jobs.enqueue(session, [new_job(owner="1/")])  # a task: Airflow itself adopts it
    with compat.transaction() as session:
        adopted = callbacks.adopt_orphans(session, "3/")
    assert sorted(adopted) == sorted([(JobKind.CALLBACK, dead), (JobKind.CONNECTION_TEST, test)])
    assert job_row(dead).owner == "3/"
    with compat.transaction() as session:
        assert callbacks.adopt_orphans(session, "3/") == []
