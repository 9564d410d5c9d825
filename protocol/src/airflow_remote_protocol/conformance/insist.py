"""What every good answer and every refusal must be, said so that a failed check reads as a complaint about central."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from airflow_remote_protocol.codec import decode, decode_problem
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest, Response
from airflow_remote_protocol.errors import STATUS, Problem, ProblemCode
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import PROBLEM_HEADER

M = TypeVar("M", bound=msgspec.Struct)


def succeeded(response: Response, kind: type[M], *, status: int = 200) -> M:
    """Insist on a success and return its message."""
    assert response.status == status, f"expected {status} with a {kind.__name__}, got {shown(response)}"
    return decode(kind, response.body)


def done(response: Response) -> None:
    """Insist on 204 without a body."""
    assert response.status == 204, f"expected 204, got {shown(response)}"
    assert not response.body, f"a 204 has no body, this one has {response.body[:80]!r}"


def refused(response: Response, *codes: ProblemCode) -> Problem:
    """Insist on a complete refusal with one of *codes* and return it."""
    problem = decode_problem(response.body)
    wanted = " or ".join(code.value for code in codes)
    assert problem is not None, f"expected the problem {wanted}, got {shown(response)}"
    assert problem.code in {code.value for code in codes}, f"expected the problem {wanted}, got {shown(response)}"
    assert response.headers.get(PROBLEM_HEADER) == problem.code, f"{PROBLEM_HEADER} must say {problem.code}: {shown(response)}"
    assert response.status == STATUS[problem.known_code] == problem.status, (
        f"the problem {problem.code} goes with status {STATUS[problem.known_code]}, got {shown(response)}"
    )
    content_type = response.headers.get("content-type", "")
    assert content_type.startswith("application/problem+json"), f"a problem's content-type is not {content_type!r}"
    return problem


def in_state(central: CentralUnderTest, job_id: str, *states: JobState) -> None:
    state = central.job_state(job_id)
    assert state in {wanted.value for wanted in states}, (
        f"the job is {state}, it should be {' or '.join(wanted.value for wanted in states)}"
    )


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until *is_so*, as long as "at once" allows: what happened may take a moment to reach all of central.

    It insists on nothing: the check goes on either way.
    """
    deadline = time.monotonic() + PROMPT_S
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)


def shown(response: Response) -> str:
    """Return what people must see of *response* to understand a complaint."""
    return f"{response.status} {response.headers.get(PROBLEM_HEADER, '')} {response.body[:200]!r}"
