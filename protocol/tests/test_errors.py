"""Problems: every code has a status and a decision, and an unknown code stops nothing."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest
from airflow_remote_protocol.codec import decode_problem, encode
from airflow_remote_protocol.errors import DECISIONS, STATUS, Decision, Problem, ProblemCode, make_problem


@pytest.mark.parametrize("code", list(ProblemCode))
def test_every_code_has_a_status_and_a_decision(code: ProblemCode) -> None:
    assert HTTPStatus(STATUS[code]) >= 400
    assert DECISIONS[code] in Decision


@pytest.mark.parametrize("code", list(ProblemCode))
def test_every_code_fits_into_a_header(code: ProblemCode) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.value)


def test_the_tables_have_no_other_codes() -> None:
    assert set(STATUS) == set(DECISIONS) == set(ProblemCode)


def test_every_decision_belongs_to_some_code() -> None:
    assert set(DECISIONS.values()) == set(Decision)


@pytest.mark.parametrize("code", list(ProblemCode))
def test_only_failures_of_central_and_of_the_network_are_retried(code: ProblemCode) -> None:
    of_network = code is ProblemCode.TOO_SLOW
    assert (STATUS[code] >= 500 or of_network) == (DECISIONS[code] is Decision.UNREACHABLE)


@pytest.mark.parametrize("code", list(ProblemCode))
def test_a_problem_survives_the_wire(code: ProblemCode) -> None:
    made = make_problem(code, "job 7 is not yours; drop it", size=3)
    assert decode_problem(encode(made)) == made
    assert (made.known_code, made.status, made.decision) == (code, STATUS[code], DECISIONS[code])


def test_a_title_is_readable() -> None:
    assert make_problem(ProblemCode.SESSION_TAKEN, "").title == "Session taken"


def test_a_size_is_sent_only_where_it_was_given() -> None:
    assert b"size" not in encode(make_problem(ProblemCode.BUSY, "later"))
    assert b'"size":0' in encode(make_problem(ProblemCode.LOG_OFFSET, "from the start", size=0))


def test_an_unknown_code_counts_as_internal() -> None:
    newer = Problem(code="out-of-cheese", title="Out of cheese", status=499)
    assert newer.known_code is ProblemCode.INTERNAL
    assert newer.decision is Decision.UNREACHABLE
