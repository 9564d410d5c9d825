"""The database queries for a call, how long an answer is cached, and the texts of refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine, select

from testkit.ledger import Enlisted, record_statements, enlist, running  # isort: skip

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import JobKind
from airflow_remote_provider import compat
from airflow_remote_provider.api.gateway import rules
from airflow_remote_provider.api.gateway.rights import Rights, token_scope
from airflow_remote_provider.api.gateway.rules import Meaning
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import NotGranted, Refusal, as_response
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.ledger import fence, queue_policy
from airflow_remote_provider.ledger.fence import Subject, WorkerLease
from airflow_remote_provider.models import Access
from starlette.requests import Request

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def worker() -> Enlisted:
    return enlist()


@pytest.fixture
def lease(worker: Enlisted) -> WorkerLease:
    return running(worker)


Check = Callable[..., Awaitable[None]]


def _with(lease: WorkerLease, work: Callable[[Check], Awaitable[None]]) -> None:
    async def run() -> None:
        pool = LedgerPool(1)
        rights = Rights(pool)
        subject = await pool.call(fence.check, lease)

        async def check(method: str, path: str, of: WorkerLease = lease, *, taken_back: bool = False) -> None:
            request = Request({"type": "http", "method": method, "headers": [], "query_string": b""})
            match = rules.find(method, path)
            await rights.check(of, replace(subject, taken_back=taken_back), match=match, request=request, body=b'{"tasks": []}')

        try:
            await work(check)
        finally:
            pool.close()

    asyncio.run(run())


def _subject(lease: WorkerLease) -> Subject:
    with compat.transaction() as session:
        return fence.check(session, lease)


def test_a_call_about_the_task_itself_costs_no_statement(lease: WorkerLease, database: Engine) -> None:
    me = _subject(lease)

    async def work(check: Check) -> None:
        with record_statements(database) as statements:
            await check("PATCH", f"task-instances/{me.id}/run")
            await check("PUT", f"task-instances/{me.id}/rtif")
            await check("GET", f"xcoms/{me.dag_id}/{me.run_id}/other/key")
            await check("POST", f"xcoms/{me.dag_id}/{me.run_id}/{me.task_id}/key")
        assert statements == []

    _with(lease, work)


def test_a_call_without_a_grant_is_denied_in_the_execution_apis_format(lease: WorkerLease) -> None:
    async def work(check: Check) -> None:
        with pytest.raises(NotGranted) as denied:
            await check("GET", "connections/plant")
        response = as_response(denied.value)
        assert (response.status_code, response.headers["content-type"]) == (403, "application/json")
        assert b'"reason":"not_granted"' in response.body

    _with(lease, work)


def test_an_answer_is_cached_and_recorded_once(lease: WorkerLease, database: Engine) -> None:
    with compat.transaction() as session:
        queue_policy.allow(session, "q", {GrantKind.VARIABLES: ["a*"]}, by="ada")

    async def work(check: Check) -> None:
        await check("GET", "variables/ab")
        with record_statements(database) as statements:
            for _ in range(10):
                await check("GET", "variables/ab")
        assert statements == []
        await check("GET", "variables/abc")

    _with(lease, work)
    with compat.transaction() as session:
        rows = session.scalars(select(Access).order_by(Access.name)).all()
    assert [(row.kind, row.name, row.answer, row.worker_name) for row in rows] == [
        ("variables", "ab", "granted", "worker"),
        ("variables", "abc", "granted", "worker"),
    ]


def test_answers_are_not_shared_between_jobs(worker: Enlisted, lease: WorkerLease) -> None:
    with compat.transaction() as session:
        queue_policy.allow(session, "q", {GrantKind.VARIABLES: ["a"]}, by="ada")
    elsewhere = running(enlist("other", ["elsewhere"]), "elsewhere")

    async def work(check: Check) -> None:
        await check("GET", "variables/a")
        with pytest.raises(NotGranted):
            await check("GET", "variables/a", elsewhere)

    _with(lease, work)


def test_a_call_that_no_grant_allows_is_refused_and_recorded_once(lease: WorkerLease, database: Engine) -> None:
    async def work(check: Check) -> None:
        for _ in range(3):
            with pytest.raises(Refusal, match="another task instance"):
                await check("PATCH", "task-instances/00000000-0000-0000-0000-000000000000/state")
        with record_statements(database) as statements, pytest.raises(Refusal):
            await check("PATCH", "task-instances/00000000-0000-0000-0000-000000000000/state")
        assert statements == []

    _with(lease, work)
    with compat.transaction() as session:
        (row,) = session.scalars(select(Access))
    assert (row.kind, row.answer) == ("call", "denied")
    assert row.name == "PATCH task-instances/00000000-0000-0000-0000-000000000000/state"


def test_only_a_connection_test_uses_a_workload_token() -> None:
    assert {kind: token_scope(kind) for kind in JobKind} == {
        JobKind.TASK: "execution",
        JobKind.CALLBACK: "execution",
        JobKind.CONNECTION_TEST: "workload",
        JobKind.TRIGGER: "execution",
    }
    assert token_scope(JobKind.CALLBACK, Meaning.START_CALLBACK) == "callback"


def test_writes_for_a_try_are_refused_after_the_job_was_taken_back(lease: WorkerLease) -> None:
    me = _subject(lease)
    own_xcom = f"xcoms/{me.dag_id}/{me.run_id}/{me.task_id}/key"

    async def work(check: Check) -> None:
        for method, path in (
            ("POST", own_xcom),
            ("DELETE", own_xcom),
            ("PUT", f"store/ti/{me.id}/key"),
            ("PUT", f"task-instances/{me.id}/rtif"),
            ("PATCH", f"task-instances/{me.id}/skip-downstream"),
        ):
            await check(method, path)
            with pytest.raises(Refusal, match="taken this job back") as refused:
                await check(method, path, taken_back=True)
            assert refused.value.code is ProblemCode.INVALID

    _with(lease, work)


def test_a_task_that_was_taken_back_may_still_clean_up(lease: WorkerLease) -> None:
    me = _subject(lease)
    with compat.transaction() as session:
        queue_policy.allow(session, "q", {GrantKind.CONNECTIONS: ["vault"], GrantKind.WRITES: ["a"]}, by="ada")

    async def work(check: Check) -> None:
        for method, path in (
            ("GET", "connections/vault"),
            ("GET", f"xcoms/{me.dag_id}/{me.run_id}/other/key"),
            ("PUT", "variables/a"),
            ("PATCH", f"task-instances/{me.id}/state"),
            ("PATCH", f"task-instances/{me.id}/run"),
        ):
            await check(method, path, taken_back=True)

    _with(lease, work)
