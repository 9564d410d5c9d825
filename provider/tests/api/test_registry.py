"""Workers are identified from memory, which follows the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from testkit.ledger import Enlisted, record_statements, enlist, session_request, worker_row  # isort: skip

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import IntentMode
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, hash_token, make_token
from airflow_remote_provider import compat
from airflow_remote_provider.api import registry as auth
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.registry import Registry, bearer
from airflow_remote_provider.ledger import rotation, sessions, workers
from airflow_remote_provider.ledger.errors import Expired
from airflow_remote_provider.ledger.workers import WorkerRecord
from airflow_remote_provider.models import Worker


def _run(check: Callable[[Registry], Awaitable[None]]) -> None:
    async def run() -> None:
        pool = LedgerPool(2)
        try:
            await check(Registry(pool))
        finally:
            pool.close()

    asyncio.run(run())


def _presents(worker: Enlisted) -> str:
    return f"Bearer {worker.credential}"


def _change(verb: object, *args: object, **kwargs: object) -> None:
    with compat.transaction() as session:
        verb(session, *args, **kwargs)  # type: ignore[operator]


def test_a_worker_is_read_once_and_then_cached(database: Engine) -> None:
    worker = enlist()

    async def check(registry: Registry) -> None:
        first = await registry.identify(_presents(worker))
        with record_statements(database) as statements:
            assert await registry.identify(_presents(worker)) is first
        assert statements == []
        assert (first.id, first.name) == (worker.id, worker.name)

    _run(check)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer garbage",
        "Bearer arwkr_x_00000000",
        "Bearer " + make_token(TokenKind.ENROLMENT, b"x" * TOKEN_BYTES),
        "Bearer " + "a" * 100_000,
    ],
)
def test_malformed_credentials_never_reach_the_database(database: Engine, header: str | None) -> None:
    async def check(registry: Registry) -> None:
        with record_statements(database) as statements, pytest.raises(Refusal) as refused:
            await registry.identify(header)
        assert refused.value.code is ProblemCode.UNAUTHORIZED
        assert statements == []

    _run(check)


def test_an_unknown_well_formed_credential_is_refused(database: Engine) -> None:
    async def check(registry: Registry) -> None:
        with pytest.raises(Refusal) as refused:
            await registry.identify("Bearer " + make_token(TokenKind.WORKER, b"x" * TOKEN_BYTES))
        assert refused.value.code is ProblemCode.UNAUTHORIZED

    _run(check)


def test_a_refusal_never_repeats_the_token() -> None:
    token = make_token(TokenKind.WORKER, b"x" * TOKEN_BYTES)
    with pytest.raises(Refusal) as refused:
        bearer(f"Bearer {token[:-1]}", TokenKind.WORKER)
    assert token[6:20] not in str(refused.value)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_schemes_case_does_not_matter(scheme: str) -> None:
    token = make_token(TokenKind.WORKER, b"x" * TOKEN_BYTES)
    assert bearer(f"{scheme} {token}", TokenKind.WORKER) == token


def test_a_revocation_elsewhere_is_known_after_a_refresh(database: Engine) -> None:
    worker = enlist()

    async def check(registry: Registry) -> None:
        await registry.identify(_presents(worker))
        await registry.refresh()
        _change(workers.revoke_worker, worker.name)
        (differs,) = await registry.refresh()
        assert differs.revoked
        with pytest.raises(Refusal) as refused:
            await registry.identify(_presents(worker))
        assert refused.value.code is ProblemCode.REVOKED

    _run(check)


def test_the_old_credential_stays_refused_after_its_name_was_reused(database: Engine) -> None:
    """Also in a process that learns of both changes at once."""
    worker = enlist()

    async def check(registry: Registry) -> None:
        await registry.identify(_presents(worker))
        await registry.refresh()
        _change(workers.revoke_worker, worker.name)
        enlist(worker.name)
        await registry.refresh()
        with pytest.raises(Refusal) as refused:
            await registry.identify(_presents(worker))
        assert refused.value.code is ProblemCode.REVOKED

    _run(check)


def test_a_refresh_returns_only_known_workers_that_differ(database: Engine) -> None:
    known = enlist("known")

    async def check(registry: Registry) -> None:
        await registry.identify(_presents(known))
        assert await registry.refresh() == []
        for worker in (known, enlist("unknown")):
            _change(workers.set_intent, worker.name, IntentMode.PAUSE, by="me")
        assert [record.name for record in await registry.refresh()] == ["known"]
        assert await registry.refresh() == []

    _run(check)


def test_a_transaction_that_stamped_earlier_but_committed_later_is_not_missed(database: Engine) -> None:
    early, late = enlist("early"), enlist("late")

    async def check(registry: Registry) -> None:
        for worker in (early, late):
            await registry.identify(_presents(worker))
        await registry.refresh()
        if database.dialect.name == "sqlite":
            return  # one writer at a time: nothing can commit out of order
        with compat.transaction() as session:
            workers.set_intent(session, early.name, IntentMode.PAUSE, by="me")
            session.flush()
            _change(workers.set_intent, late.name, IntentMode.PAUSE, by="me")
            assert [record.name for record in await registry.refresh()] == ["late"]
        assert [record.name for record in await registry.refresh()] == ["early"]

    _run(check)


def test_a_fleet_that_changed_together_is_not_read_by_every_refresh(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "OVERLAP", timedelta(seconds=0.1))
    read: list[int] = []
    real = workers.changed_since

    def watched(session: Session, since: datetime | None) -> list[WorkerRecord]:
        rows = real(session, since)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(workers, "changed_since", watched)
    worker, *_ = [enlist(f"w{n}") for n in range(3)]

    async def check(registry: Registry) -> None:
        await registry.identify(_presents(worker))
        await registry.refresh()
        await registry.refresh()  # an older change may have been committed after the newest
        assert read[1] > 0
        await asyncio.sleep(0.15)
        await registry.refresh()
        await registry.refresh()
        assert read[-1] == 0
        await asyncio.to_thread(_change, workers.revoke_worker, worker.name)
        assert [record.name for record in await registry.refresh()] == [worker.name]

    _run(check)


def test_a_row_read_before_a_session_was_opened_does_not_end_it(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = enlist()
    with compat.transaction() as session:
        (older,) = workers.changed_since(session, None)
        newer = sessions.open_session(session, worker.id, session_request())
    monkeypatch.setattr(workers, "changed_since", lambda session, since: [older])
    monkeypatch.setattr(workers, "by_credentials", lambda session, digests: dict.fromkeys(digests, older))

    async def check(registry: Registry) -> None:
        registry.remember(newer)
        assert await registry.refresh() == []
        assert registry.remember(older) is newer
        assert (await registry.identify(_presents(worker))).session_id == newer.session_id

    _run(check)


def test_a_session_opened_elsewhere_is_known_after_a_refresh(database: Engine) -> None:
    worker = enlist()

    async def check(registry: Registry) -> None:
        await registry.identify(_presents(worker))
        await registry.refresh()
        _change(sessions.open_session, worker.id, session_request())
        await registry.refresh()
        assert (await registry.identify(_presents(worker))).session_id != worker.session_id

    _run(check)


def test_concurrent_calls_share_one_refresh(database: Engine) -> None:
    worker = enlist()

    async def check(registry: Registry) -> None:
        with record_statements(database) as statements:
            await asyncio.gather(*(registry.catch_up() for _ in range(500)))
        assert len(statements) <= 2, "the one that was under way may have read too early, so at most one more is needed"
        assert (await registry.identify(_presents(worker))).id == worker.id

    _run(check)


def test_after_a_refresh_no_worker_has_to_be_looked_up(database: Engine) -> None:
    fleet = [enlist(f"w{number}") for number in range(3)]

    async def check(registry: Registry) -> None:
        await registry.refresh()
        with record_statements(database) as statements:
            for worker in fleet:
                await registry.identify(_presents(worker))
        assert statements == []

    _run(check)


def test_a_change_is_notified_whichever_call_refreshed(database: Engine) -> None:
    """Otherwise a refresh for one worker's call would not answer another's open poll, which would continue after a revocation."""
    worker = enlist()
    notified: list[WorkerRecord] = []

    async def check(registry: Registry) -> None:
        await registry.identify(_presents(worker))
        await registry.refresh()
        registry.on_change = notified.append
        await asyncio.to_thread(_change, workers.revoke_worker, worker.name)
        await registry.catch_up()
        assert [record.revoked for record in notified] == [True]
        assert await registry.refresh() == []

    _run(check)


def _next(worker: Enlisted) -> str:
    with compat.transaction() as session:
        credential, _ = rotation.issue(session, worker.id, hash_token(worker.credential), life=timedelta(days=30))
    return f"Bearer {credential}"


def _age(worker: Enlisted, **values: object) -> None:
    with compat.transaction() as session:
        row = session.get(Worker, worker.id)
        for name, value in values.items():
            setattr(row, name, value)


def test_a_credential_that_another_process_issued_is_known_at_its_first_use(database: Engine) -> None:
    worker = enlist()

    async def check(registry: Registry) -> None:
        await registry.identify(_presents(worker))
        new = await asyncio.to_thread(_next, worker)
        assert (await registry.identify(new)).id == worker.id
        assert (await registry.identify(_presents(worker))).id == worker.id  # a call that was sent before
        with record_statements(database) as statements:
            await registry.identify(new)
        assert statements == []

    _run(check)


def test_a_replaced_credential_flags_the_worker_and_costs_one_transaction_a_minute(database: Engine) -> None:
    worker = enlist()

    async def check(registry: Registry) -> None:
        new = await asyncio.to_thread(_next, worker)
        await registry.identify(new)
        await asyncio.to_thread(_age, worker, past_at=datetime(2020, 1, 1, tzinfo=timezone.utc))
        with pytest.raises(Refusal, match="has been replaced") as refused:
            await registry.identify(_presents(worker), "10.0.0.7")
        assert refused.value.code is ProblemCode.UNAUTHORIZED
        with record_statements(database) as statements, pytest.raises(Refusal, match="has been replaced"):
            await registry.identify(_presents(worker))
        assert statements == []
        assert (await registry.identify(new)).id == worker.id

    _run(check)
    assert "10.0.0.7" in worker_row(worker.id).alarm


def test_a_replay_that_suspends_notifies_the_worker(database: Engine) -> None:
    worker = enlist()

    async def check(registry: Registry) -> None:
        registry._suspends = True
        notified: list[WorkerRecord] = []
        registry.on_change = notified.append
        new = await asyncio.to_thread(_next, worker)
        await registry.identify(new)
        await asyncio.to_thread(_age, worker, past_at=datetime(2020, 1, 1, tzinfo=timezone.utc))
        with pytest.raises(Refusal):
            await registry.identify(_presents(worker))
        assert [record.suspended for record in notified] == [True]
        with pytest.raises(Refusal) as refused:
            await registry.identify(new)
        assert refused.value.code is ProblemCode.SUSPENDED and refused.value.retry_after_s

    _run(check)


def test_the_database_decides_whether_a_credential_has_expired(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = enlist()
    soon = datetime.now(timezone.utc) + timedelta(days=1)
    _age(worker, credential_expires_at=soon)

    class LateClock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return soon + timedelta(days=365)

    async def check(registry: Registry) -> None:
        assert (await registry.identify(_presents(worker))).id == worker.id
        await asyncio.to_thread(_age, worker, credential_expires_at=datetime(2020, 1, 1, tzinfo=timezone.utc))
        with pytest.raises(Expired):
            await registry.identify(_presents(worker))

    monkeypatch.setattr(auth, "datetime", LateClock)
    _run(check)
