"""Assertions about answers of central and about its state. Their texts describe what central did wrong."""

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


def expect_message(response: Response, kind: type[M], *, status: int = 200) -> M:
    """Check that the answer is a success with a *kind*, and return it."""
    assert response.status == status, f"expected {status} with a {kind.__name__}, got {describe(response)}"
    return decode(kind, response.body)


def expect_no_content(response: Response) -> None:
    """Check that the answer is a 204 without a body."""
    assert response.status == 204, f"expected 204, got {describe(response)}"
    assert not response.body, f"a 204 has no body, this one has {response.body[:80]!r}"


def expect_refusal(response: Response, *codes: ProblemCode) -> Problem:
    """Check that the answer is a complete refusal with one of *codes*, and return its problem."""
    problem = decode_problem(response.body)
    wanted = " or ".join(code.value for code in codes)
    assert problem is not None, f"expected the problem {wanted}, got {describe(response)}"
    assert problem.code in {code.value for code in codes}, f"expected the problem {wanted}, got {describe(response)}"
    assert response.headers.get(PROBLEM_HEADER) == problem.code, f"{PROBLEM_HEADER} must say {problem.code}: {describe(response)}"
    assert response.status == STATUS[problem.known_code] == problem.status, (
        f"the problem {problem.code} goes with status {STATUS[problem.known_code]}, got {describe(response)}"
    )
    content_type = response.headers.get("content-type", "")
    assert content_type.startswith("application/problem+json"), f"a problem's content-type is not {content_type!r}"
    return problem


def expect_state(central: CentralUnderTest, job_id: str, *states: JobState) -> None:
    state = central.job_state(job_id)
    assert state in {wanted.value for wanted in states}, (
        f"the job is {state}, it should be {' or '.join(wanted.value for wanted in states)}"
    )


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until *is_so*, for at most PROMPT_S: a change may take a moment to reach all of central's processes.

    Checks nothing: the check continues in either case.
    """
    deadline = time.monotonic() + PROMPT_S
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)


def describe(response: Response) -> str:
    """Return *response* for the text of a failure."""
    return f"{response.status} {response.headers.get(PROBLEM_HEADER, '')} {response.body[:200]!r}"
