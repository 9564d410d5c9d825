"""Which runtime from central a job is offered in: topic of :mod:`airflow_remote_provider.ledger.dispatch`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy import Engine, delete, update
from sqlalchemy.orm import Session

from testkit.ledger import Enlisted, claim, enlist, job_row, queued, record_statements  # isort: skip

from airflow_remote_protocol.messages import HeldRuntime, JobKind, RuntimePhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import held_runtimes, leases, rollouts, runtimes, trees
from airflow_remote_provider.ledger.assignments import Plan
from airflow_remote_provider.ledger.expired_offers import OfferRules, expire_offers
from airflow_remote_provider.models import Job, TreeRow

from testkit.runtimes import LINUX, build, edition

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _plan() -> Plan:
    return _do(runtimes.load_plan)


def _enlist(name: str = "worker", *ready: str, slots: int = 4, queues: tuple[str, ...] = ("q",)) -> Enlisted:
    capabilities = ("task", "runtimes", *(kind.value for kind in JobKind))
    worker = enlist(name, queues, capabilities=capabilities, platform=LINUX, slots=slots, triggers=4)
    _report(worker, *ready)
    return worker


def _report(worker: Enlisted, *ready: str) -> None:
    held = [HeldRuntime(tree, RuntimePhase.READY) for tree in ready]
    _do(lambda session: held_runtimes.note(session, worker.id, held))


def test_a_job_goes_where_its_runtime_is_ready_and_pins_it() -> None:
    build()
    tree = edition("default", 1)
    bare, ready = _enlist("bare", slots=9), _enlist("ready", tree)
    job = queued()
    assert claim(bare.claimant(), plan=_plan()) == []
    (claimed,) = claim(bare.claimant(), ready.claimant(), plan=_plan())
    assert claimed.worker_id == ready.id
    assert claimed.runtime is not None
    assert (claimed.runtime.name, claimed.runtime.serial, claimed.runtime.tree.digest) == ("default", 1, tree)
    assert job_row(job.job_id).runtime == tree
    assert _do(lambda session: trees.is_pinned_by(session, ready.id, tree))
    assert not _do(lambda session: trees.is_pinned_by(session, bare.id, tree))


def test_a_worker_with_a_runtime_of_its_own_is_offered_jobs_as_before() -> None:
    build()
    job = queued()
    (claimed,) = claim(enlist("site").claimant(), plan=_plan())
    assert (claimed.job_id, claimed.runtime, job_row(job.job_id).runtime) == (job.job_id, None, None)


@pytest.mark.parametrize("kind", [JobKind.CALLBACK, JobKind.CONNECTION_TEST, JobKind.TRIGGER])
def test_every_kind_of_job_needs_the_runtime(kind: JobKind) -> None:
    build()
    worker = _enlist("worker")
    queued(kind=kind, slots=0 if kind is JobKind.TRIGGER else 1)
    assert claim(worker.claimant(triggers=2), plan=_plan()) == []
    _report(worker, edition("default", 1))
    (claimed,) = claim(worker.claimant(triggers=2), plan=_plan())
    assert claimed.runtime is not None and claimed.runtime.serial == 1


def test_each_queue_has_its_own_runtime() -> None:
    build()
    build("gpu")
    _do(lambda session: rollouts.assign_queue(session, "g", "gpu", by="ann"))
    worker = _enlist("worker", edition("default", 1), queues=("q", "g"))
    of_gpu, of_default = queued("g"), queued("q")
    assert [one.job_id for one in claim(worker.claimant(), plan=_plan())] == [of_default.job_id]
    _report(worker, edition("default", 1), edition("gpu", 1))
    (claimed,) = claim(worker.claimant(), plan=_plan())
    assert (claimed.job_id, claimed.runtime and claimed.runtime.name) == (of_gpu.job_id, "gpu")


def test_a_job_that_is_offered_again_gets_the_runtime_that_is_wanted_then() -> None:
    build()
    build()
    old, new = edition("default", 1), edition("default", 2)
    worker = _enlist("worker", old)
    job = queued()
    (claimed,) = claim(worker.claimant(), plan=_plan())
    assert job_row(job.job_id).runtime == old
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    _report(worker, new, old)
    _do(lambda session: leases.withdraw(session, [worker.lease(claimed)]))
    (again,) = claim(worker.claimant(), plan=_plan())
    assert again.runtime is not None and (again.runtime.serial, job_row(job.job_id).runtime) == (2, new)
    with compat.transaction() as session:
        session.execute(update(Job).values(deadline_at=compat.database_now(session) - timedelta(hours=1)))
    _do(lambda session: expire_offers(session, OfferRules(3, timedelta())))
    (third,) = claim(enlist("site").claimant(), plan=_plan())
    assert (third.job_id, third.runtime, job_row(job.job_id).runtime) == (job.job_id, None, None)


def test_a_runtime_that_was_deleted_at_this_moment_is_not_offered() -> None:
    build()
    tree = edition("default", 1)
    worker, plan = _enlist("worker", tree), _plan()
    queued()
    _do(lambda session: session.execute(delete(TreeRow).where(TreeRow.digest == tree)))
    assert claim(worker.claimant(), plan=plan) == []


def test_a_runtime_of_which_central_lost_a_file_is_offered_where_it_is_ready() -> None:
    build()
    tree = edition("default", 1)
    worker = _enlist("worker", tree)
    queued()
    _do(lambda session: trees.unfinish_tree(session, tree))
    assert len(claim(worker.claimant(), plan=_plan())) == 1


def test_a_claim_takes_one_more_statement_for_runtimes_and_none_without_them(database: Engine) -> None:
    build()
    plan = _plan()
    counts = []
    for worker in (enlist("site"), _enlist("worker", edition("default", 1))):
        queued()
        with record_statements(database) as statements:
            assert len(claim(worker.claimant(), plan=plan)) == 1
        counts.append(len(statements))
    without, with_runtimes = counts
    assert with_runtimes == without + 1
