"""What users see of a job: the runtime from central and the worker's release that it runs with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from testkit.ledger import claim, enlist, queued, record_statements  # isort: skip

from airflow_remote_protocol.messages import HeldRuntime, JobKind, RuntimePhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import held_runtimes, rollouts, runtimes
from airflow_remote_provider.ledger.views.jobs import JobRow, JobRuntime, list_jobs, show_job
from airflow_remote_provider.models import Edition, Worker

from testkit.runtimes import LINUX, build, edition

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _show(job_id: str) -> JobRow:
    return _do(lambda session: show_job(session, job_id))


def _offered() -> str:
    """Offer a job to a worker of release 0.2.0 that has the rolled runtime ready; return the job's id."""
    serial = _do(lambda session: runtimes.get(session, "default")).serial  # type: ignore[union-attr]
    worker = enlist("worker", capabilities=("runtimes", *JobKind), platform=LINUX)
    held = [HeldRuntime(edition("default", serial), RuntimePhase.READY)]
    _do(lambda session: held_runtimes.note(session, worker.id, held))
    _do(lambda session: session.execute(update(Worker).values(facts={"version": "0.2.0", "platform": LINUX})))
    job = queued()
    (claimed,) = claim(worker.claimant(), plan=_do(runtimes.load_plan))
    assert claimed.job_id == job.job_id
    return job.job_id


def test_a_job_shows_the_runtime_and_the_release_that_it_was_offered_with(database: Engine) -> None:
    build()
    waiting = queued("other").job_id
    assert (_show(waiting).runtime, _show(waiting).release) == (None, "")
    job = _offered()
    tree = edition("default", 1)
    assert (_show(job).runtime, _show(job).release) == (JobRuntime(tree, "default", 1), "0.2.0")
    with record_statements(database) as statements:
        rows = {row.id: row.runtime for row in _do(list_jobs).rows}
    assert rows == {job: JobRuntime(tree, "default", 1), waiting: None}
    assert len(statements) == 2


def test_a_tree_that_is_published_again_does_not_change_the_serial_of_earlier_jobs() -> None:
    build()
    build()
    job = _offered()
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), to=1, by="ann"))
    assert edition("default", 3) == edition("default", 1)
    shown = _show(job).runtime
    assert shown is not None and shown.serial == 1


def test_a_runtime_whose_edition_is_not_kept_is_shown_by_its_tree() -> None:
    build()
    job, tree = _offered(), edition("default", 1)
    _do(lambda session: session.execute(update(Edition).values(tree=None)))
    assert _show(job).runtime == JobRuntime(tree, "", 0)
