"""Parked polls and their answers; the cost of an idle fleet; offers whose poll is gone."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, insert, select

from testkit.central import PREFIX, ServedCentral  # isort: skip
from testkit.ledger import (  # isort: skip
    Enlisted,
    TaskInstance,
    ago,
    change_task,
    record_statements,
    enlist,
    job_row,
    jobs,
    new_job,
    queued,
    running,
    session_request,
)

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import (
    HeldJob,
    HeldRuntime,
    IntentMode,
    JobPhase,
    Outcome,
    Poll,
    PollReply,
    Report,
    RuntimePhase,
    StopReason,
)
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, hash_token, make_token
from airflow_remote_protocol.version import EPOCH_HEADER, MARKER_HEADER, PROTOCOL_VERSION, SESSION_HEADER
from airflow_remote_provider import compat
from airflow_remote_provider.api.dispatch import dispatcher, wakeups
from airflow_remote_provider.api.dispatch.dispatcher import Dispatcher
from airflow_remote_provider.api.dispatch.waiting_room import News, Parked
from airflow_remote_provider.api.planned_runtimes import PlannedRuntimes
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.registry import Registry
from airflow_remote_provider.definitions.needs import encode_labels
from airflow_remote_provider.ledger import (
    bundles,
    dispatch,
    ended_tasks,
    held_runtimes,
    rollouts,
    rotation,
    sessions,
    suspension,
    workers,
)
from airflow_remote_provider.ledger.wakeup import Topic
from airflow_remote_provider.models import Job, Worker, WorkerContact
from airflow_remote_provider.settings import settings

from testkit.runtimes import LINUX, build, edition

# One dispatcher, polls parked by hand


class Bench:
    """A dispatcher on a loop of its own, without HTTP."""

    def __init__(self, pool: LedgerPool) -> None:
        self.pool = pool
        self.registry = Registry(pool)
        self.work_seen = 0
        self.stops_seen = 0
        self.published = asyncio.Event()
        self.runtimes = PlannedRuntimes(pool)
        self.dispatcher = Dispatcher(
            pool,
            self.registry,
            self.runtimes,
            settings(),
            on_work=self._count_work,
            on_stop=self._count_stop,
            on_publish=self.published.set,
        )

    def _count_work(self) -> None:
        self.work_seen += 1

    def _count_stop(self) -> None:
        self.stops_seen += 1

    async def park(self, worker: Enlisted, *, free_slots: int | None = None, revision: int = 1, holds: Any = ()) -> Parked:
        record = await self.registry.identify(f"Bearer {worker.credential}")
        answer: asyncio.Future[News | Exception] = asyncio.get_running_loop().create_future()
        slots = worker.slots if free_slots is None else free_slots
        parked = Parked(record, slots, frozenset(holds), revision, answer)
        self.dispatcher.park(parked)
        return parked


async def _reply(parked: Parked, within_s: float = 5.0) -> News | Exception:
    return await asyncio.wait_for(asyncio.shield(parked.answer), within_s)


async def _offers(parked: Parked) -> list[str]:
    news = await _reply(parked)
    assert isinstance(news, News)
    return [offer.job_id for offer in news.offers]


def _run(check: Callable[[Bench], Awaitable[None]], pool: Callable[[], LedgerPool] = lambda: LedgerPool(2)) -> None:
    async def run() -> None:
        bench = Bench(pool())
        sides = [asyncio.ensure_future(loop) for loop in (bench.dispatcher.run(), bench.dispatcher.listen())]
        try:
            await check(bench)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            bench.pool.close()

    asyncio.run(run())


async def _in_thread(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, lambda: work(*args, **kwargs))


def _change(verb: Any, *args: Any, **kwargs: Any) -> None:
    with compat.transaction() as session:
        verb(session, *args, **kwargs)


def test_a_new_job_is_offered_to_a_parked_poll(database: Engine) -> None:
    worker = enlist()

    async def check(bench: Bench) -> None:
        parked = await bench.park(worker)
        job = await _in_thread(queued)
        assert await _offers(parked) == [job.job_id]
        assert bench.work_seen > 0, "the duties must sweep from now on"

    _run(check)


def test_a_waiting_job_is_offered_to_a_new_poll(database: Engine) -> None:
    worker, job = enlist(), queued()

    async def check(bench: Bench) -> None:
        await asyncio.sleep(0.2)
        assert await _offers(await bench.park(worker)) == [job.job_id]

    _run(check)


def test_an_offer_has_its_deadline_and_the_time_without_contact(database: Engine) -> None:
    worker = enlist()
    queued(lost_after_s=600.0, workload='{"any": "thing"}')
    queued(lost_after_s=60.0)

    async def check(bench: Bench) -> None:
        news = await _reply(await bench.park(worker))
        assert isinstance(news, News)
        long, short = news.offers
        assert (long.deadline_s, long.stop_after_s) == (settings().offer_deadline_seconds, 540.0)
        assert short.stop_after_s == 30.0, "half of it, where the margin would leave nothing"
        assert bytes(long.workload) == b'{"any": "thing"}'

    _run(check)


def test_a_poll_without_free_slots_gets_no_offer(database: Engine) -> None:
    worker, _job = enlist(), queued()

    async def check(bench: Bench) -> None:
        parked = await bench.park(worker, free_slots=0)
        await asyncio.sleep(0.6)
        assert parked.is_waiting

    _run(check)


def test_an_offer_whose_poll_is_gone_is_queued_again_at_once(database: Engine) -> None:
    worker, job = enlist(), queued()
    rooms: list[tuple[Bench, Parked]] = []

    class Leaving(LedgerPool):
        async def call(self, verb: Any, *args: Any, **kwargs: Any) -> Any:
            result = await super().call(verb, *args, **kwargs)
            if verb is dispatch.claim and rooms:
                bench, parked = rooms.pop()
                bench.dispatcher.room.leave(parked)  # the client disconnects during the claim
            return result

    async def check(bench: Bench) -> None:
        rooms.append((bench, await bench.park(worker)))  # nothing is claimed before the first await
        until = time.monotonic() + 30
        while (row := await _in_thread(job_row, job.job_id)).epoch == 0 or row.state != "queued":
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        assert (row.epoch, row.offers, row.not_before) == (1, 0, None)
        assert await _offers(await bench.park(worker)) == [job.job_id]

    _run(check, lambda: Leaving(2))


def test_a_worker_that_reports_too_many_free_slots_does_not_starve_others(database: Engine) -> None:
    full, wrong, honest = enlist("full", slots=1), enlist("wrong", slots=0), enlist("honest", slots=2)
    running(full)

    async def check(bench: Bench) -> None:
        for worker in (full, wrong):
            await bench.park(worker, free_slots=1000)
        parked = await bench.park(honest)
        job = await _in_thread(queued)
        assert await _offers(parked) == [job.job_id]

    _run(check)


def test_jobs_without_a_free_slot_are_not_queried_in_a_busy_loop(database: Engine) -> None:
    wrong = enlist("wrong", slots=0)
    queued()

    async def check(bench: Bench) -> None:
        with record_statements(database) as statements:
            parked = await bench.park(wrong, free_slots=1000)
            await asyncio.sleep(0.5)
        assert parked.is_waiting
        assert len(statements) < 40

    _run(check)


def test_work_is_spread_over_the_fleet(database: Engine) -> None:
    fleet = [enlist(f"w{i}", slots=2) for i in range(3)]

    async def check(bench: Bench) -> None:
        parked = [await bench.park(worker) for worker in fleet]
        await _in_thread(_queue_at_once, 6)
        assert [len(await _offers(poll)) for poll in parked] == [2, 2, 2]

    _run(check)


def _queue_at_once(count: int) -> None:
    with compat.transaction() as session:
        jobs.enqueue(session, [new_job() for _ in range(count)])


def test_a_stop_reaches_the_poll_of_the_worker_that_runs_the_job(database: Engine) -> None:
    mine, other = enlist("mine"), enlist("other")
    lease = running(mine)

    async def check(bench: Bench) -> None:
        parked = await bench.park(mine, free_slots=0, holds=[(lease.job_id, lease.epoch)])
        bystander = await bench.park(other, free_slots=0)
        await asyncio.sleep(0.3)
        assert parked.is_waiting
        await _in_thread(change_task, job_row(lease.job_id).ti_id, state="failed")
        await _in_thread(_change, ended_tasks.stop_ended)
        news = await _reply(parked)
        assert isinstance(news, News)
        assert [(stop.job_id, stop.epoch, stop.reason) for stop in news.stops] == [(lease.job_id, lease.epoch, StopReason.ENDED)]
        assert bystander.is_waiting

    _run(check)


def test_a_stop_that_is_already_in_progress_is_not_sent_again(database: Engine) -> None:
    worker = enlist()
    lease = running(worker)

    async def check(bench: Bench) -> None:
        await _in_thread(change_task, job_row(lease.job_id).ti_id, state="failed")
        await _in_thread(_change, ended_tasks.stop_ended)
        parked = await bench.park(worker, free_slots=0, holds=[])
        await asyncio.sleep(0.6)
        assert parked.is_waiting

    _run(check)


@pytest.mark.parametrize("what", ["intent", "limit", "rotate", "revoked", "suspended", "session"])
def test_a_parked_poll_receives_changes_of_its_worker(database: Engine, what: str) -> None:
    worker = enlist()
    changes: dict[str, Callable[[], None]] = {
        "intent": lambda: _change(workers.set_intent, worker.name, IntentMode.DRAIN, by="me"),
        "limit": lambda: _change(workers.limit_slots, worker.name, 1, by="me"),
        "rotate": lambda: _change(rotation.request_rotation, worker.name, by="me"),
        "suspended": lambda: _change(suspension.suspend, worker.name, by="me"),
        "revoked": lambda: _change(workers.revoke_worker, worker.name),
        "session": lambda: _change(sessions.open_session, worker.id, session_request()),
    }

    async def check(bench: Bench) -> None:
        parked = await bench.park(worker)
        await asyncio.sleep(0.2)
        await _in_thread(changes[what])
        news = await _reply(parked)
        if what in ("intent", "limit", "rotate"):
            assert isinstance(news, News) and news.intent is not None and news.intent.revision == 2
        else:
            assert isinstance(news, Refusal)
            codes = {"revoked": ProblemCode.REVOKED, "suspended": ProblemCode.SUSPENDED, "session": ProblemCode.SESSION_TAKEN}
            assert news.code is codes[what]

    _run(check)


def test_a_parked_poll_whose_worker_gets_a_queue_gets_its_jobs_at_once(database: Engine) -> None:
    worker = enlist(queues=["q"])
    job = queued("other")

    async def check(bench: Bench) -> None:
        parked = await bench.park(worker, free_slots=1)
        await asyncio.sleep(0.2)
        assert parked.is_waiting
        await _in_thread(lambda: _change(workers.set_queues, worker.name, ["q", "other"], by="me"))
        news = await _reply(parked)
        assert isinstance(news, News) and [offer.job_id for offer in news.offers] == [job.job_id]

    _run(check)


@pytest.mark.parametrize("change", ["labels", "bundles"])
def test_a_parked_poll_gets_a_job_at_once_when_its_worker_becomes_suitable(database: Engine, change: str) -> None:
    worker = enlist(bundles=["plant"])
    job = queued(labels=encode_labels({"gpu": "yes"})) if change == "labels" else queued(bundle="office")

    async def check(bench: Bench) -> None:
        parked = await bench.park(worker)
        await asyncio.sleep(0.3)
        assert parked.is_waiting
        if change == "labels":
            await _in_thread(_change, workers.set_labels, worker.name, {"gpu": "yes"}, by="ann")
        else:
            await _in_thread(_change, workers.set_bundles, worker.name, None, by="ann")
        assert await _offers(parked) == [job.job_id]

    _run(check)


def test_the_loop_ends_when_cancelled_even_if_it_is_woken_at_the_same_time(database: Engine) -> None:
    async def check(bench: Bench) -> None:
        for moment in range(6):
            loop = Dispatcher(bench.pool, bench.registry, bench.runtimes, settings(), on_work=lambda: None, on_stop=lambda: None)
            side = asyncio.ensure_future(loop.run())
            await asyncio.sleep(0.02)
            loop.wake(Topic.QUEUED)
            for _ in range(moment):
                await asyncio.sleep(0)
            side.cancel()
            done, _ = await asyncio.wait([side], timeout=3)
            assert done, f"it continues after a cancellation {moment} steps after a wake"

    _run(check)


def test_the_loop_survives_database_failures_and_retries(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "RETRY_S", 0.1)
    worker, job = enlist(), queued()
    failures = [ConnectionError("the database is away")] * 2

    class Failing(LedgerPool):
        async def call(self, verb: Any, *args: Any, **kwargs: Any) -> Any:
            if verb is dispatch.demand and failures:
                raise failures.pop()
            return await super().call(verb, *args, **kwargs)

    async def check(bench: Bench) -> None:
        assert await _offers(await bench.park(worker)) == [job.job_id]
        assert failures == []

    _run(check, lambda: Failing(2))


# The whole app, served


def _headers(worker: Enlisted) -> dict[str, str]:
    return {
        "authorization": f"Bearer {worker.credential}",
        MARKER_HEADER: PROTOCOL_VERSION,
        SESSION_HEADER: worker.session_id,
    }


def _client(central: ServedCentral, **how: Any) -> httpx.AsyncClient:
    # Without `verify`, each client would load the system's authorities, which plain HTTP doesn't need.
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{central.port}{PREFIX}/", timeout=60, verify=False, **how)


async def _poll(client: httpx.AsyncClient, worker: Enlisted, wait_s: float = 50, jobs: Any = ()) -> PollReply:
    body = encode(Poll(worker.slots - len(jobs), 1, wait_s, list(jobs)))
    answer = await client.post("poll", content=body, headers=_headers(worker))
    assert answer.status_code == 200, answer.text
    return decode(PollReply, answer.content)


def _fleet(count: int) -> list[Enlisted]:
    """Many workers with open sessions, in two statements."""
    made, rows = [], []
    now = ago()
    for i in range(count):
        credential = make_token(TokenKind.WORKER, uuid.uuid4().bytes * (TOKEN_BYTES // 16))
        worker = Enlisted(str(uuid.uuid4()), f"w{i}", str(uuid.uuid4()), credential, 4)
        made.append(worker)
        rows.append(
            {
                "id": worker.id,
                "name": worker.name,
                "credential_hash": hash_token(credential),
                "session_id": worker.session_id,
                "queues": ["q"],
                "slots": 4,
                "received_revision": 1,
                "facts": {},
                "created_at": now,
                "changed_at": now,
            }
        )
    with compat.transaction() as session:
        session.execute(insert(Worker), rows)
        session.execute(insert(WorkerContact), [{"worker_id": worker.id} for worker in made])
    return made


@pytest.fixture
def on_postgres(database: Engine) -> Engine:
    if database.dialect.name != "postgresql":
        pytest.skip("only Postgres can notify")
    return database


def test_an_idle_fleet_costs_only_the_ticks(on_postgres: Engine) -> None:
    """Counts statements, not time: the ticks of one API process, whatever the number of workers."""
    fleet = _fleet(200)
    seconds = 10

    async def check(central: ServedCentral) -> list[str]:
        limits = httpx.Limits(max_connections=len(fleet) + 5)
        async with _client(central, limits=limits) as client:
            polls = [asyncio.ensure_future(_poll(client, worker)) for worker in fleet]
            with record_statements(on_postgres) as settling:
                await _quiet(settling)
            assert not [poll for poll in polls if poll.done()], "all are parked"
            with record_statements(on_postgres) as statements:
                await asyncio.sleep(seconds)
            job = await _in_thread(queued)
            done, still_parked = await asyncio.wait(polls, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            assert [offer.job_id for poll in done for offer in poll.result().offers] == [job.job_id]
            assert len(still_parked) == len(fleet) - 1
            for poll in still_parked:
                poll.cancel()
            await asyncio.gather(*still_parked, return_exceptions=True)
            return statements

    with ServedCentral() as central:
        statements = asyncio.run(check(central))
    assert len(statements) <= seconds * 0.5 + 5, "\n".join(statements)


@pytest.fixture
def swallowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection pooler that accepts LISTEN and passes no NOTIFY on, like PgBouncer with transaction pooling."""

    def connect() -> Any:
        connection = compat.engine().connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()
        return connection.connection.dbapi_connection

    monkeypatch.setattr(wakeups, "_connect", connect)


def test_a_revocation_ends_open_polls_without_notifications(on_postgres: Engine, swallowing: None) -> None:
    worker, other = enlist("edge"), enlist("other")

    async def check(first: ServedCentral, second: ServedCentral) -> None:
        async with _client(first) as here, _client(second) as there:
            polls = [asyncio.ensure_future(_ask(client, worker)) for client in (here, there)]
            stays = asyncio.ensure_future(_ask(there, other))
            await asyncio.sleep(15)  # until the registries of both processes are settled
            assert not stays.done()
            await _in_thread(_change, workers.revoke_worker, "edge")
            done, _ = await asyncio.wait([polls[1]], timeout=20)  # well before its 50 s are over
            assert done and polls[1].result() == 403
            assert not stays.done()
            for poll in (*polls, stays):
                poll.cancel()
            await asyncio.gather(*polls, stays, return_exceptions=True)

    with ServedCentral() as first, ServedCentral() as second:
        asyncio.run(check(first, second))


async def _ask(client: httpx.AsyncClient, worker: Enlisted) -> int:
    answer = await client.post("poll", content=encode(Poll(worker.slots, 1, 50, [])), headers=_headers(worker))
    return answer.status_code


def test_jobs_and_stops_reach_a_parked_poll_soon_without_notifications(on_postgres: Engine, swallowing: None) -> None:
    worker = enlist("edge")
    held = running(worker)

    async def check(central: ServedCentral) -> None:
        async with _client(central) as client:
            await asyncio.sleep(1)
            poll = asyncio.ensure_future(_poll(client, worker))
            await asyncio.sleep(0.5)
            job = await _in_thread(queued)
            reply = await asyncio.wait_for(poll, 20)
            assert [offer.job_id for offer in reply.offers] == [job.job_id]
            poll = asyncio.ensure_future(_poll(client, worker, jobs=[HeldJob(held.job_id, held.epoch, JobPhase.RUNNING)]))
            await asyncio.sleep(0.5)
            await _in_thread(_change, jobs.revoke, held.job_id)
            reply = await asyncio.wait_for(poll, 20)
            assert [stop.job_id for stop in reply.stops] == [held.job_id]

    with ServedCentral() as central:
        asyncio.run(check(central))


def test_without_notifications_an_idle_process_queries_about_once_a_second(on_postgres: Engine, swallowing: None) -> None:
    (worker,) = _fleet(1)
    seconds = 10

    async def check(central: ServedCentral) -> list[str]:
        async with _client(central) as client:
            poll = asyncio.ensure_future(_poll(client, worker))
            await asyncio.sleep(15)
            with record_statements(on_postgres) as statements:
                await asyncio.sleep(seconds)
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)
            return statements

    with ServedCentral() as central:
        statements = asyncio.run(check(central))
    assert len(statements) <= seconds * 1.2, "\n".join(statements)


async def _quiet(statements: list[str]) -> None:
    """Wait until there is no query for longer than a sweep's tick."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        before = len(statements)
        await asyncio.sleep(4.0)
        if len(statements) == before:
            return
    raise AssertionError("\n".join(statements[-20:]))


def test_repeated_polls_cost_nothing_while_no_job_waits(on_postgres: Engine) -> None:
    (worker,) = _fleet(1)

    async def check(central: ServedCentral) -> list[str]:
        async with _client(central) as client:
            await _poll(client, worker, wait_s=0.5)
            with record_statements(on_postgres) as statements:
                for _ in range(40):
                    await _poll(client, worker, wait_s=0.02)
            return statements

    with ServedCentral() as central:
        statements = asyncio.run(check(central))
    assert len(statements) < 20, "the ticks at most\n" + "\n".join(statements)


def test_a_job_reaches_a_poll_that_is_parked_at_another_process(on_postgres: Engine) -> None:
    """Two centrals on one database. Each job is enqueued while a poll waits at the first or the second only."""

    async def check(first: ServedCentral, second: ServedCentral) -> None:
        for i, central in enumerate((second, first)):
            worker = await _in_thread(enlist, f"edge-{i}")
            async with _client(central) as client:
                poll = asyncio.ensure_future(_poll(client, worker, wait_s=20))
                await asyncio.sleep(0.5)
                assert not poll.done()
                job = await _in_thread(queued)
                assert [offer.job_id for offer in (await poll).offers] == [job.job_id]

    with ServedCentral() as first, ServedCentral() as second:
        asyncio.run(check(first, second))


def test_a_request_to_publish_reaches_the_other_processes(on_postgres: Engine) -> None:
    async def check(bench: Bench) -> None:
        while not bench.dispatcher._listener.is_listening:
            await asyncio.sleep(0.02)
        bench.published.clear()
        await _in_thread(_request_bundle, "etl")
        await asyncio.wait_for(bench.published.wait(), 30)

    _run(check)


def _request_bundle(name: str) -> None:
    with compat.transaction() as session:
        bundles.request(session, name)


def test_polls_at_two_processes_share_the_work_and_nothing_is_offered_twice(on_postgres: Engine) -> None:
    async def check(first: ServedCentral, second: ServedCentral) -> None:
        here, there = await _in_thread(enlist, "here", slots=3), await _in_thread(enlist, "there", slots=3)
        async with _client(first) as one, _client(second) as two:
            polls = [asyncio.ensure_future(_poll(one, here, 10)), asyncio.ensure_future(_poll(two, there, 10))]
            await asyncio.sleep(0.5)
            await _in_thread(_queue_at_once, 6)
            offers = [offer.job_id for reply in await asyncio.gather(*polls) for offer in reply.offers]
            assert len(set(offers)) == len(offers)
            if len(offers) < 6:  # one took as many as it could before the other looked; the rest waits for the next poll
                for client, worker in ((one, here), (two, there)):
                    reply = await _poll(client, worker, 1, await _in_thread(_held_by, worker))
                    offers += [offer.job_id for offer in reply.offers]
            assert (len(offers), len(set(offers))) == (6, 6)

    with ServedCentral() as first, ServedCentral() as second:
        asyncio.run(check(first, second))


def test_a_report_fills_the_slot_that_a_poll_named_free_too_early(on_postgres: Engine) -> None:
    """A worker's slot is free when its job has ended; its poll may arrive before the report and be passed over."""

    async def check(central: ServedCentral) -> None:
        worker = await _in_thread(enlist, slots=1)
        lease = await _in_thread(running, worker)
        job = await _in_thread(queued)
        async with _client(central) as client:
            poll = asyncio.ensure_future(_poll(client, worker, wait_s=20))
            await asyncio.sleep(0.5)
            assert not poll.done()
            headers = _headers(worker) | {EPOCH_HEADER: str(lease.epoch)}
            body = encode(Report(Outcome.SUCCEEDED))
            assert (await client.post(f"jobs/{lease.job_id}/report", content=body, headers=headers)).status_code == 204
            reply = await asyncio.wait_for(poll, dispatcher.SAFETY_TICK_S / 2)
            assert [offer.job_id for offer in reply.offers] == [job.job_id]

    with ServedCentral() as central:
        asyncio.run(check(central))


def _held_by(worker: Enlisted) -> list[HeldJob]:
    with compat.transaction() as session:
        found = session.scalars(select(Job).where(Job.worker_id == worker.id))
        return [HeldJob(job.id, job.epoch, JobPhase.PREPARING) for job in found]


def test_a_disconnected_client_gets_no_offers(database: Engine) -> None:
    gone, stays = enlist("gone", slots=9), enlist("stays", slots=1)

    async def check(central: ServedCentral) -> None:
        async with _client(central) as client:
            abandoned = asyncio.ensure_future(_poll(client, gone))
            await asyncio.sleep(0.4)
            abandoned.cancel()
            await asyncio.gather(abandoned, return_exceptions=True)
            await asyncio.sleep(0.3)
            poll = asyncio.ensure_future(_poll(client, stays))
            job = await _in_thread(queued)
            assert [offer.job_id for offer in (await poll).offers] == [job.job_id]
            assert (await _in_thread(job_row, job.job_id)).epoch == 1

    with ServedCentral() as central:
        asyncio.run(check(central))


def test_a_job_can_still_be_ended_after_its_terminal_state_failed(database: Engine) -> None:
    """The Execution API failed on it; a user must still be able to end the task."""
    worker = enlist()
    lease = running(worker)
    path = f"jobs/{lease.job_id}/execution/task-instances/{job_row(lease.job_id).ti_id}/state"

    async def check(central: ServedCentral) -> None:
        async with _client(central) as client:
            headers = {**_headers(worker), EPOCH_HEADER: str(lease.epoch)}
            for breaks, status in ((b"{}", 500), (b"out of bounds", 422)):
                answer = await client.patch(path, content=breaks, headers=headers)
                assert answer.status_code == status
                assert (await _in_thread(job_row, lease.job_id)).concluded_at is None
            answer = await client.patch(path, json={"state": "success"}, headers=headers)
            assert answer.status_code == 204
            assert (await _in_thread(job_row, lease.job_id)).concluded_at is not None
            answer = await client.patch(path, content=b"{}", headers=headers)  # another state is no repeat
            assert answer.status_code == 422
            assert (await _in_thread(job_row, lease.job_id)).concluded_at is not None, "the first one stays the task's state"

    with ServedCentral() as central:
        asyncio.run(check(central))


def test_a_repeated_end_does_not_affect_the_tasks_next_job(database: Engine) -> None:
    """It deferred, was resumed and runs as another job; the reply to the first end had been lost."""
    worker = enlist()
    workload = json.dumps({"ti": {"id": "ti"}, "dag_rel_path": "dag.py", "bundle": {"name": "b", "version": None}})
    lease = running(worker, workload=workload)
    ti_id = job_row(lease.job_id).ti_id
    path = f"jobs/{lease.job_id}/execution/task-instances/{ti_id}/state"

    def state() -> str | None:
        with compat.transaction() as session:
            task = session.get(TaskInstance, ti_id)
            return None if task is None else task.state

    async def check(central: ServedCentral) -> None:
        async with _client(central) as client:
            headers = {**_headers(worker), EPOCH_HEADER: str(lease.epoch)}
            said = {"state": "deferred", "classpath": "site.Trigger", "trigger_kwargs": {}, "next_method": "resume"}
            assert (await client.patch(path, json=said, headers=headers)).status_code == 204
            await _in_thread(central.move_task_on, lease.job_id)
            assert (await client.patch(path, json=said, headers=headers)).status_code == 204
            assert await _in_thread(state) == "running"

    with ServedCentral() as central:
        asyncio.run(check(central))


@pytest.mark.usefixtures("database")
def test_another_plan_ends_the_polls_of_the_workers_that_it_concerns() -> None:
    taker = enlist("taker", capabilities=("task", "runtimes"), platform=LINUX)
    site = enlist("site")
    build()

    async def check(bench: Bench) -> None:
        await bench.runtimes.load()
        parked = await bench.park(taker, free_slots=0)
        other = await bench.park(site, free_slots=0)
        assert parked.worker.host is not None
        parked.runtimes_revision = bench.runtimes.list_for(parked.worker.host).revision
        other.runtimes_revision = ""
        began = asyncio.get_running_loop().time()
        await _in_thread(build)
        await _in_thread(_change, rollouts.roll, rollouts.of_runtime("default"), by="ann")
        news = await _reply(parked)
        assert asyncio.get_running_loop().time() - began < 4
        assert isinstance(news, News) and news.runtimes is not None
        assert [ref.serial for ref in news.runtimes.wanted] == [2]
        assert other.is_waiting

    _run(check)


@pytest.mark.usefixtures("database")
def test_a_runtime_that_becomes_ready_lets_the_worker_have_the_jobs_that_waited() -> None:
    worker = enlist("taker", capabilities=("task", "runtimes"), platform=LINUX)
    build()
    job = queued()

    async def check(bench: Bench) -> None:
        await bench.runtimes.load()
        parked = await bench.park(worker)
        await asyncio.sleep(0.3)
        assert parked.is_waiting
        await _in_thread(_change, held_runtimes.note, worker.id, [HeldRuntime(edition("default", 1), RuntimePhase.READY)])
        news = await _reply(parked)
        assert isinstance(news, News)
        (offer,) = news.offers
        assert (offer.job_id, offer.runtime and offer.runtime.serial) == (job.job_id, 1)

    _run(check)
