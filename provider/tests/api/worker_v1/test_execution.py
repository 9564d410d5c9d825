"""The gateway's route: how it handles the Execution API's answers. The conformance suite covers the rest."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import JobKind
from airflow_remote_provider import compat
from airflow_remote_provider.api.gateway.gateway import Passed
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1.execution import match_rule, serve_call
from airflow_remote_provider.ledger.fence import Subject, WorkerLease
from starlette.requests import Request
from starlette.responses import Response


class _Central:
    """An Execution API that gives *answers* in turn, on a database that may be unavailable."""

    def __init__(self, *answers: int, database_is_away: bool = False, body: bytes = b"") -> None:
        self.answers = list(answers)
        self.body = body
        self.database_is_away = database_is_away
        self.settings = SimpleNamespace(gateway_body_bytes=1000)
        self.lease_cache = self.gateway = self.rights = self

    async def refusal(self, *call: object, **parts: object) -> Refusal:
        return Refusal(ProblemCode.INVALID, "no rule")

    async def get_subject(self, lease: WorkerLease) -> Subject:
        return Subject(JobKind.TASK, "id")  # type: ignore[arg-type]

    async def confirm(self, lease: WorkerLease, verb: object) -> Subject:
        if self.database_is_away:
            raise Refusal(ProblemCode.BUSY, "away")
        return await self.get_subject(lease)

    async def check(self, *call: object, **parts: object) -> None:
        """Everything is granted."""

    check_values = check

    async def pass_on(self, *call: object, **parts: object) -> Passed:
        return Passed(self.answers.pop(0), {}, self.body)


def _ask(central: _Central, path: str, method: str = "GET") -> int:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": method, "headers": [], "raw_path": f"/jobs/job/execution/{path}".encode()}
    scope["path_params"] = {"job_id": "job", "path": path}
    request, lease = Request(scope, receive), WorkerLease("worker", "job", 1)

    async def served() -> Response:
        match = await match_rule(central, request, lease)  # type: ignore[arg-type]
        return await serve_call(central, request, lease, match)  # type: ignore[arg-type]

    return asyncio.run(served()).status_code


@pytest.mark.parametrize("path", ["variables/plant", "connections/plant"])
def test_a_secret_is_read_again_if_it_was_not_found(path: str) -> None:
    assert _ask(_Central(404, 200), path) == 200


def test_a_missing_secret_is_not_found() -> None:
    assert _ask(_Central(404, 404), "variables/plant") == 404


def test_not_found_is_never_answered_without_the_database() -> None:
    with pytest.raises(Refusal):
        _ask(_Central(404, database_is_away=True), "variables/plant")


@pytest.mark.parametrize(("method", "path"), [("DELETE", "variables/plant"), ("GET", "xcoms/a/b/c/key")])
def test_other_calls_are_made_once(method: str, path: str) -> None:
    assert _ask(_Central(404), path, method) == 404


RUNNING = b'{"detail": {"reason": "invalid_state", "previous_state": "running"}}'
ENDED = b'{"detail": {"reason": "invalid_state", "previous_state": "failed"}}'


@pytest.mark.parametrize(
    ("airflow_has_the_call", "status", "body", "answered"),
    [
        (True, 204, b"", 204),
        (True, 409, RUNNING, 204),  # the answer was lost, and the worker repeats the call
        (True, 409, ENDED, 409),
        (True, 409, b"[]", 409),
        (True, 404, b"", 404),  # the callback was deleted
        (False, 404, b"", 204),  # Airflow 3.3
        (True, 500, b"", 500),
    ],
)
def test_a_callback_starts_once_with_each_airflow_version(
    monkeypatch: pytest.MonkeyPatch, airflow_has_the_call: bool, status: int, body: bytes, answered: int
) -> None:
    monkeypatch.setattr(compat, "has_callback_start", lambda: airflow_has_the_call)
    assert _ask(_Central(status, body=body), "callbacks/id/run", "PATCH") == answered


def test_empty_fields_of_a_newer_task_sdk_do_not_reach_an_airflow_that_refuses_them() -> None:
    said = {"state": "success", "end_date": "2026-11-30T00:00:00Z", "rendered_map_index": None}
    assert compat.state_for_this_airflow(said | {"of_a_newer_sdk": None}) == said
    assert compat.state_for_this_airflow(said | {"of_a_newer_sdk": 1}) == said | {"of_a_newer_sdk": 1}, "Airflow refuses it"
