"""`POST enrol` by an attacker: failures are counted, refused and audited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.central import ServedCentral  # isort: skip
from testkit.ledger import audit_entries, use_ledger, make_engine  # isort: skip

from airflow_remote_protocol.conformance.caller import enrol
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Enrolled
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, make_token
from airflow_remote_provider.settings import settings


@pytest.fixture
def central(new_database: Callable[[str], str], tmp_path: Path) -> Iterator[ServedCentral]:
    engine = make_engine(new_database("sqlite"))
    with use_ledger(engine, tmp_path), ServedCentral() as served:
        yield served
    engine.dispose()


def test_guessed_tokens_are_refused_counted_and_audited(central: ServedCentral) -> None:
    good = central.enrolment_token(["q"])
    most = settings().enrol_failures_per_minute
    for number in range(most):
        guess = make_token(TokenKind.ENROLMENT, number.to_bytes(TOKEN_BYTES, "big")) if number % 2 else "rubbish"
        expect_refusal(
            enrol(central, token=guess, name="w"), ProblemCode.TOKEN_REFUSED if number % 2 else ProblemCode.UNAUTHORIZED
        )
    answer = enrol(central, token=good, name="w")
    expect_refusal(answer, ProblemCode.BUSY)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    [entry] = audit_entries("enrolment-refused")
    assert (entry.actor, entry.times) == ("127.0.0.1", most // 2)


def test_successful_enrolments_are_not_counted(central: ServedCentral) -> None:
    token = central.enrolment_token(["q"], uses=settings().enrol_failures_per_minute + 2)
    for number in range(settings().enrol_failures_per_minute + 2):
        expect_message(enrol(central, token=token, name=f"w{number}"), Enrolled, status=201)
