from __future__ import annotations

import pytest
from airflow_remote_protocol.errors import DECISIONS, Decision, Problem, ProblemCode, make_problem
from airflow_remote_worker.errors import Outdated, Refused, Rewind, SessionTaken, Superseded, Unreachable, Withheld, from_problem

KINDS = {
    Decision.UNREACHABLE: Unreachable,
    Decision.WAIT: Withheld,
    Decision.REFUSED: Refused,
    Decision.SUPERSEDED: Superseded,
    Decision.OUTDATED: Outdated,
    Decision.REOPEN: SessionTaken,
    Decision.REWIND: Rewind,
}


@pytest.mark.parametrize("code", list(ProblemCode))
def test_every_problem_becomes_the_error_of_its_decision(code: ProblemCode) -> None:
    assert type(from_problem(make_problem(code, "because", size=7))) is KINDS[DECISIONS[code]]


def test_an_unknown_code_is_retried() -> None:
    error = from_problem(Problem(code="quantum-flux", title="?", status=409), retry_after_s=3)
    assert isinstance(error, Unreachable)
    assert error.retry_after_s == 3


def test_a_rewind_has_central_s_size() -> None:
    error = from_problem(make_problem(ProblemCode.LOG_OFFSET, "", size=42))
    assert isinstance(error, Rewind)
    assert error.size == 42


@pytest.mark.parametrize(
    ("code", "only"), [(ProblemCode.TOO_LARGE, True), (ProblemCode.INVALID, True), (ProblemCode.REVOKED, False)]
)
def test_some_refusals_concern_only_one_request(code: ProblemCode, only: bool) -> None:
    error = from_problem(make_problem(code, ""))
    assert isinstance(error, Refused)
    assert error.concerns_one_request is only
