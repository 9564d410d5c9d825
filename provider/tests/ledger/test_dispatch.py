"""Which worker gets which job: order, capacity and rights, also when several processes claim at once."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from airflow_remote_protocol.messages import IntentMode
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.needs import encode_labels
from airflow_remote_provider.ledger import dispatch, leases, workers
from airflow_remote_provider.ledger.dispatch import BATCH
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.models import Job, Worker
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from testkit.ledger import (
    Claimers,
    ago,
    change_job,
    claim,
    enlist,
    job_row,
    jobs,
    new_job,
    offered,
    queued,
    record_statements,
    running,
)  # isort: skip

pytestmark = pytest.mark.usefixtures("database")


def test_the_highest_priority_goes_first_then_the_oldest() -> None:
    young, old, urgent = (queued(priority=priority).job_id for priority in (1, 1, 9))
    change_job(old, queued_at=ago(hours=1))
    worker = enlist(slots=3)
    assert [claim(worker.claimant(1))[0].job_id for _ in range(3)] == [urgent, old, young]


def test_one_claim_offers_in_the_same_order() -> None:
    ids = [queued(priority=priority).job_id for priority in (2, 3, 1)]
    assert [job.job_id for job in claim(enlist().claimant())] == [ids[1], ids[0], ids[2]]


def test_the_order_does_not_depend_on_earlier_offers() -> None:
    ids = [queued(priority=priority).job_id for priority in (9, 8, 7)]
    change_job(ids[1], epoch=5)
    assert [(job.job_id, job.epoch) for job in claim(enlist().claimant())] == [(ids[0], 1), (ids[1], 6), (ids[2], 1)]


def test_a_claim_costs_the_same_for_one_job_and_for_many(database: Engine) -> None:
    queued()
    with record_statements(database) as one:
        claim(enlist("one", slots=1).claimant())
    for _ in range(20):
        queued()
    worker = enlist("many", slots=20)
    with record_statements(database) as many:
        assert len(claim(worker.claimant())) == 20
    assert len(many) <= len(one)


def test_a_job_that_was_offered_elsewhere_meanwhile_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = queued(priority=2), queued()
    real = dispatch._candidates

    def late(session: Session, *args: Any, **options: Any) -> Any:
        rows = real(session, *args, **options)
        session.execute(update(Job).where(Job.id == first.job_id).values(epoch=7))
        return rows

    monkeypatch.setattr(dispatch, "_candidates", late)
    assert [job.job_id for job in claim(enlist().claimant())] == [second.job_id]
    assert job_row(first.job_id).state == "queued"


def test_an_offer_matches_the_row_of_the_job() -> None:
    job = queued(slots=2, workload='{"a": 1}', lost_after_s=77.0)
    worker = enlist()
    (claimed,) = claim(worker.claimant())
    assert (claimed.workload, claimed.slots, claimed.lost_after_s, claimed.kind) == ('{"a": 1}', 2, 77.0, "task")
    row = job_row(job.job_id)
    assert (row.state, row.epoch, row.worker_id, row.worker_name, row.offers) == ("offered", 1, worker.id, worker.name, 1)
    assert row.deadline_at is not None and row.offered_at is not None and row.deadline_at > row.offered_at


def test_each_offer_raises_the_epoch() -> None:
    worker = enlist()
    first = offered(worker)
    with compat.transaction() as session:
        leases.withdraw(session, [first])
    (again,) = claim(worker.claimant())
    assert (again.job_id, again.epoch) == (first.job_id, 2)


def test_a_worker_gets_only_its_queues() -> None:
    mine, _other = queued("a"), queued("b")
    assert [job.job_id for job in claim(enlist(queues=["a", "c"]).claimant())] == [mine.job_id]


@pytest.mark.parametrize("other", ["GPU", "gpú"])
def test_names_of_queues_are_compared_exactly(other: str) -> None:
    queued(other, priority=9)
    mine = queued("gpu")
    with compat.transaction() as session:
        assert {need.queue for need in dispatch.demand(session)} == {"gpu", other}
    assert [job.job_id for job in claim(enlist(queues=["gpu"], slots=1).claimant())] == [mine.job_id]


def test_a_trailing_space_makes_another_queue_and_blocks_no_other() -> None:
    queued("gpu ")
    mine = queued("gpu")
    assert [job.job_id for job in claim(enlist(queues=["gpu"]).claimant())] == [mine.job_id]


def test_jobs_and_workers_of_different_teams_never_meet() -> None:
    nobodys, blue = queued("q"), queued("q", team="blue")
    plain, of_blue, of_red = enlist("plain"), enlist("blue", team="blue"), enlist("red", team="red")
    assert claim(of_red.claimant()) == []
    got = {job.worker_id: job.job_id for job in claim(plain.claimant(), of_blue.claimant(), of_red.claimant())}
    assert got == {plain.id: nobodys.job_id, of_blue.id: blue.job_id}


def test_pool_slots_count_as_slots() -> None:
    worker = enlist(slots=4)
    for _ in range(3):
        queued(slots=2)
    assert len(claim(worker.claimant())) == 2
    assert claim(worker.claimant()) == []


def test_offers_and_running_jobs_fill_slots_and_ended_ones_do_not() -> None:
    worker = enlist(slots=2)
    lease = running(worker)
    offered(worker)
    queued()
    assert claim(worker.claimant()) == []
    change_job(lease.job_id, state="succeeded")
    assert len(claim(worker.claimant())) == 1


def test_a_worker_gets_no_more_than_it_asks_for() -> None:
    worker = enlist(slots=4)
    for _ in range(3):
        queued()
    assert len(claim(worker.claimant(free_slots=1))) == 1


def test_a_worker_that_asks_for_more_than_its_session_offered_gets_no_more() -> None:
    worker = enlist(slots=2)
    for _ in range(5):
        queued()
    assert len(claim(worker.claimant(free_slots=10_000))) == 2


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_worker_gets_no_more_than_its_limit(limit: int) -> None:
    worker = enlist(slots=4)
    with compat.transaction() as session:
        workers.limit_slots(session, worker.name, limit, by="me")
    for _ in range(5):
        queued()
    assert len(claim(worker.claimant())) == limit


def test_a_worker_over_its_limit_takes_nothing_from_the_others() -> None:
    over, free = enlist("over", slots=4), enlist("free", slots=2)
    for _ in range(4):
        running(over)
    with compat.transaction() as session:
        workers.limit_slots(session, over.name, 1, by="me")
    for _ in range(3):
        queued()
    assert [job.worker_id for job in claim(over.claimant(), free.claimant())] == [free.id, free.id]


def test_the_worker_with_most_free_slots_is_preferred() -> None:
    small, big = enlist("small", slots=2), enlist("big", slots=4)
    for _ in range(4):
        queued()
    assert Counter(job.worker_id for job in claim(small.claimant(), big.claimant())) == {big.id: 3, small.id: 1}


def test_a_job_that_fits_no_worker_blocks_no_other() -> None:
    huge, small = queued(slots=100, priority=9), queued()
    assert [job.job_id for job in claim(enlist().claimant())] == [small.job_id]
    assert job_row(huge.job_id).state == "queued"


def test_a_whole_batch_of_jobs_that_fit_no_worker_blocks_no_other() -> None:
    with compat.transaction() as session:
        jobs.enqueue(session, [new_job("q", slots=100, priority=9) for _ in range(BATCH + 20)])
        jobs.enqueue(session, [new_job("elsewhere", priority=9) for _ in range(BATCH + 20)])
    small = queued()
    assert [job.job_id for job in claim(enlist(slots=2).claimant())] == [small.job_id]


def test_a_job_that_fits_only_the_largest_worker_goes_there() -> None:
    small, large = enlist("small", slots=2), enlist("large", slots=8)
    job = queued(slots=5)
    assert [(c.job_id, c.worker_id) for c in claim(small.claimant(), large.claimant())] == [(job.job_id, large.id)]


def test_a_delayed_job_is_not_offered_before_its_time() -> None:
    worker, job = enlist(), queued()
    change_job(job.job_id, not_before=ago(hours=-1))
    assert claim(worker.claimant()) == []
    change_job(job.job_id, not_before=ago(seconds=1))
    assert len(claim(worker.claimant())) == 1


def test_a_revoked_worker_gets_nothing() -> None:
    worker = enlist()
    queued()
    with compat.transaction() as session:
        workers.revoke_worker(session, worker.name)
    assert claim(worker.claimant()) == []


@pytest.mark.parametrize("mode", [IntentMode.PAUSE, IntentMode.DRAIN, IntentMode.LEAVE])
def test_a_worker_with_another_intent_than_serve_gets_nothing(mode: IntentMode) -> None:
    worker = enlist()
    queued()
    with compat.transaction() as session:
        workers.set_intent(session, worker.name, mode, by="me")
    assert claim(worker.claimant()) == []


def test_a_poll_of_an_older_session_gets_nothing() -> None:
    worker = enlist()
    queued()
    with compat.transaction() as session:
        session.execute(update(Worker).values(session_id="newer"))
    assert claim(worker.claimant()) == []


def test_a_worker_that_was_deleted_meanwhile_gets_nothing() -> None:
    queued()
    assert claim(dispatch.Claimant("no such worker", "session", 3)) == []


def test_demand_groups_waiting_jobs_by_queue_and_team() -> None:
    for queue, team, slots in (("a", None, 3), ("a", None, 2), ("a", "blue", 1), ("b", None, 5)):
        queued(queue, team=team, slots=slots)
    change_job(queued("c").job_id, not_before=ago(hours=-1))
    running(enlist(queues=["d"]), "d")
    with compat.transaction() as session:
        found = {(need.queue, need.team): (need.jobs, need.smallest) for need in dispatch.demand(session)}
    assert found == {("a", None): (2, 2), ("a", "blue"): (1, 1), ("b", None): (1, 5)}


# Labels and bundles

KIEL = encode_labels({"site": "kiel"})


def test_a_job_that_needs_labels_goes_to_a_worker_that_has_them() -> None:
    plain, kiel = enlist("plain", slots=9), enlist("kiel", labels={"site": "kiel", "gpu": "yes"})
    needy = queued(labels=KIEL)
    assert claim(plain.claimant()) == []
    assert [(job.job_id, job.worker_id) for job in claim(plain.claimant(), kiel.claimant())] == [(needy.job_id, kiel.id)]
    any_will_do = queued()
    assert [job.job_id for job in claim(kiel.claimant())] == [any_will_do.job_id]


def test_a_worker_limited_to_bundles_gets_no_jobs_of_others() -> None:
    plant = enlist("plant", bundles=["plant-*"])
    other, of_plant, of_none = queued(bundle="office"), queued(bundle="plant-a"), queued(bundle=None)
    assert {job.job_id for job in claim(plant.claimant())} == {of_plant.job_id, of_none.job_id}
    assert [job.job_id for job in claim(enlist("any").claimant())] == [other.job_id]


def test_jobs_that_no_worker_can_run_do_not_block_others() -> None:
    worker = enlist(slots=1)
    for _ in range(5):
        queued(labels=KIEL, priority=9)
        queued(bundle="office", priority=9)
    with compat.transaction() as session:
        workers.set_bundles(session, worker.name, ["plant"], by="ann")
    fits = queued(bundle="plant")
    assert [job.job_id for job in claim(worker.claimant())] == [fits.job_id]


def test_changed_labels_and_bundles_count_from_the_next_offer_on() -> None:
    worker = enlist()
    needy, office = queued(labels=KIEL), queued(bundle="office")
    with compat.transaction() as session:
        workers.set_bundles(session, worker.name, ["plant"], by="ann")
    assert claim(worker.claimant()) == []
    with compat.transaction() as session:
        workers.set_labels(session, worker.name, {"site": "kiel"}, by="ann")
    assert [job.job_id for job in claim(worker.claimant())] == [needy.job_id]
    with compat.transaction() as session:
        workers.set_bundles(session, worker.name, ["plant", "*"], by="ann")
    assert [job.job_id for job in claim(worker.claimant())] == [office.job_id]


def test_demand_separates_jobs_with_different_needs() -> None:
    for labels, bundle in ((None, "b"), (None, "b"), (KIEL, "b"), (None, "c")):
        queued(labels=labels, bundle=bundle)
    with compat.transaction() as session:
        found = {(need.labels, need.bundle): need.jobs for need in dispatch.demand(session)}
    assert found == {(None, "b"): 2, (KIEL, "b"): 1, (None, "c"): 1}


@pytest.mark.parametrize("bundles", [[], [" "], ["x" * 251]])
def test_bad_globs_of_bundles_are_refused(bundles: list[str]) -> None:
    worker = enlist()
    with pytest.raises(LedgerError, match=r"glob|at least one"), compat.transaction() as session:
        workers.set_bundles(session, worker.name, bundles, by="ann")


# Several processes


def test_processes_that_claim_at_once_never_offer_a_job_twice(claimers: Claimers, database_url: str) -> None:
    enlisted = [enlist(f"w{i}", queues=[("a", "b")[i % 2]], slots=10) for i in range(4)]
    for i in range(40):
        queued(("a", "b")[i % 2], slots=1 + i % 3)
    made = claimers.claim(database_url, [w.claimant() for w in enlisted])

    assert len({(job, epoch) for job, epoch, _ in made}) == len(made)
    assert len({job for job, _, _ in made}) == len(made), "an offer that was not withdrawn was made again"
    with compat.transaction() as session:
        leased = session.scalars(select(Job).where(Job.state == "offered")).all()
        still_queued = session.scalars(select(Job).where(Job.state == "queued")).all()
    assert {(job.id, job.epoch, job.worker_id) for job in leased} == set(made), "the ledger agrees with each process"
    queues = {worker.id: ("a", "b")[i % 2] for i, worker in enumerate(enlisted)}
    assert all(job.worker_id is not None and queues[job.worker_id] == job.queue for job in leased)
    used = Counter[str]()
    for job in leased:
        used[str(job.worker_id)] += job.slots
    assert all(used[worker.id] <= worker.slots for worker in enlisted), used
    for worker in enlisted:  # and no job that fits was left
        free, queue = worker.slots - used[worker.id], queues[worker.id]
        assert not [job for job in still_queued if job.queue == queue and job.slots <= free]


def test_processes_that_claim_for_the_same_worker_share_its_slots(claimers: Claimers, database_url: str) -> None:
    worker = enlist(slots=7)
    for _ in range(30):
        queued()
    made = claimers.claim(database_url, [worker.claimant()])
    assert len(made) == 7


def test_no_job_is_offered_twice_at_one_epoch(claimers: Claimers, database_url: str) -> None:
    enlisted = [enlist(f"w{i}", slots=5) for i in range(2)]
    for _ in range(6):
        queued()
    made = claimers.claim(database_url, [w.claimant() for w in enlisted], rounds=25)
    assert len(made) > 6, "each job was offered repeatedly"
    assert len({(job, epoch) for job, epoch, _ in made}) == len(made)


def test_two_open_transactions_cannot_fill_one_worker_twice() -> None:
    """The second claim waits for the first one's worker lock (Postgres), or for the whole database (SQLite)."""
    worker = enlist(slots=3)
    for _ in range(10):
        queued()
    first_holds, results = threading.Event(), []

    def second() -> None:
        first_holds.wait(10)
        results.append(claim(worker.claimant()))

    thread = threading.Thread(target=second)
    thread.start()
    with compat.transaction() as session:
        first = dispatch.claim(
            session,
            [worker.claimant()],
            dispatch.demand(session),
            deadline=timedelta(seconds=30),
            patience=timedelta(minutes=1),
        )
        first_holds.set()
        thread.join(0.3)
        assert thread.is_alive(), "the second waits"
    thread.join(10)
    assert (len(first), results) == (3, [[]])


def test_a_new_worker_with_the_same_name_gets_no_jobs_of_the_old_one() -> None:
    old = enlist()
    queued()
    with compat.transaction() as session:
        workers.remove_worker(session, old.name)
    new = enlist(old.name)
    assert claim(old.claimant()) == []
    assert len(claim(new.claimant())) == 1
