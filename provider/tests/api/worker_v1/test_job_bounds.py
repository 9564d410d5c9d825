"""The size limits of a job's calls in both directions, and the texts of refusals."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import ENVELOPE_BYTES
from airflow_remote_protocol.messages import JobKind
from airflow_remote_provider.api.admission.holdings import Holdings
from airflow_remote_provider.api.gateway.failures import Failures
from airflow_remote_provider.api.gateway.gateway import Passed
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1.job_bounds import serve_within_bounds
from airflow_remote_provider.ledger.fence import Subject, WorkerLease
from starlette.requests import Request
from starlette.responses import Response

MOST = 100_000


class _Central:
    """Allows everything, and answers with *answer* bytes."""

    def __init__(self, answer: int = 2) -> None:
        self.answer = answer
        self.passed: list[int] = []
        self.settings = SimpleNamespace(gateway_body_bytes=MOST)
        self.holdings, self.failures = Holdings(MOST), Failures()
        self.lease_cache = self.gateway = self.rights = self.writes = self.started_jobs = self
        self.pool = SimpleNamespace(jobs=SimpleNamespace(call=print))

    async def get_subject(self, lease: WorkerLease) -> Subject:
        return Subject(JobKind.TASK, "id")  # type: ignore[arg-type]

    async def take(self, lease: WorkerLease, size: int) -> None:
        """There is no limit."""

    async def note_write(self, lease: WorkerLease, *, store: object) -> None:
        """The job has begun."""

    async def check(self, *call: object, **parts: object) -> None:
        """Everything is granted."""

    check_values = check

    async def pass_on(self, match: object, *, query: bytes, headers: object, body: bytes, subject: Subject) -> Passed:
        self.passed.append(len(body))
        return Passed(200, {}, b"x" * self.answer)


def _call(central: _Central, method: str, size: int = 0) -> Response:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * size}

    scope = {"type": "http", "method": method, "headers": [(b"content-length", str(size).encode())]}
    scope |= {"raw_path": b"/jobs/job/execution/xcoms/d/r/t/k", "path_params": {"job_id": "job"}}
    lease = WorkerLease("worker", "job", 1)
    return asyncio.run(serve_within_bounds(central, Request(scope, receive), lease))  # type: ignore[arg-type]


def test_a_body_at_the_limit_passes_in_both_directions() -> None:
    central = _Central(answer=MOST + ENVELOPE_BYTES)
    assert _call(central, "POST", MOST).status_code == 200
    assert central.passed == [MOST]
    assert len(_call(central, "GET").body) == MOST + ENVELOPE_BYTES


@pytest.mark.parametrize("size", [MOST + 1, 50_000_000])
def test_a_larger_body_is_refused_with_size_limit_and_option(size: int) -> None:
    central = _Central()
    with pytest.raises(Refusal, match=rf"{size} bytes; the limit is {MOST} bytes \(\[remote\] gateway_body_bytes\)") as refused:
        _call(central, "POST", size)
    assert refused.value.code is ProblemCode.TOO_LARGE
    assert central.passed == []


def test_a_larger_answer_is_refused_before_it_is_sent() -> None:
    size = MOST + ENVELOPE_BYTES + 1
    with pytest.raises(Refusal, match=rf"answer has {size} bytes; the limit is {MOST} bytes") as refused:
        _call(_Central(answer=size), "GET")
    assert refused.value.code is ProblemCode.TOO_LARGE


def test_the_answer_to_a_write_is_never_refused() -> None:
    assert _call(_Central(answer=MOST * 3), "POST", 10).status_code == 200
