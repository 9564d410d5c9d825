"""Workers that are bound to their client certificates, which the proxy in front of central names in a header."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from testkit.central import ServedCentral  # isort: skip
from testkit.ledger import audit_entries, use_ledger, make_engine, worker_row  # isort: skip

from airflow_remote_protocol.conformance.caller import Caller, enrol
from airflow_remote_protocol.conformance.central import Response
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Enrolled
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import certificates
from airflow_remote_provider.settings import settings

HEADER = "X-Client-Subject"
OURS, STRANGE = "CN=plant-7,O=Corp", "CN=plant-8,O=Corp"


@pytest.fixture
def central(
    request: pytest.FixtureRequest, new_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServedCentral]:
    monkeypatch.setenv("AIRFLOW__REMOTE__CLIENT_CERTIFICATE_HEADER", getattr(request, "param", HEADER))
    settings.cache_clear()
    engine = make_engine(new_database("sqlite"))
    with use_ledger(engine, tmp_path), ServedCentral() as served:
        yield served
    settings.cache_clear()
    engine.dispose()


@dataclass
class By:
    """Central behind a proxy that received *subject*'s certificate."""

    central: ServedCentral
    subject: str | None

    def request(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"") -> Response:
        added = {} if self.subject is None else {HEADER: self.subject}
        return self.central.request(method, path, headers={**headers, **added}, body=body)


def _joined(central: ServedCentral, subject: str = OURS) -> Caller:
    token = central.enrolment_token(["q"])
    return Caller(By(central, subject), expect_message(enrol(By(central, subject), token=token, name="w"), Enrolled, status=201))  # type: ignore[arg-type]


def _shown(worker: Caller, subject: str | None) -> Caller:
    """The same credential and session, with another certificate."""
    other = worker.with_session(worker.session) if worker.session else worker
    other.central = By(worker.central.central, subject)  # type: ignore[assignment, attr-defined]
    return other


def _id_of(name: str) -> str:
    from airflow_remote_provider.models import Worker
    from sqlalchemy import select

    with compat.transaction() as session:
        return str(session.scalar(select(Worker.id).where(Worker.name == name)))


def test_a_worker_is_bound_to_the_certificate_of_its_enrolment(central: ServedCentral) -> None:
    worker = _joined(central)
    assert worker_row(_id_of("w")).certificate == OURS
    worker.open_session()
    assert worker.call("GET", "ping").status == 200


@pytest.mark.parametrize(("subject", "why"), [(None, "without a client certificate"), ("", "without"), ("x" * 501, "too long")])
def test_without_a_certificate_enrolments_and_calls_are_refused(central: ServedCentral, subject: str | None, why: str) -> None:
    token = central.enrolment_token(["q"])
    answer = enrol(By(central, subject), token=token, name="nobody")  # type: ignore[arg-type]
    assert why in expect_refusal(answer, ProblemCode.WRONG_CERTIFICATE).detail
    worker = _joined(central)
    worker.open_session()
    answer = _shown(worker, subject).call("GET", "ping")
    assert why in expect_refusal(answer, ProblemCode.WRONG_CERTIFICATE).detail
    assert int(answer.headers["retry-after"]) > 0


def test_a_stolen_credential_with_another_certificate_is_refused_and_flagged(central: ServedCentral) -> None:
    worker = _joined(central)
    worker.open_session()
    session_id = worker.session_id
    thief = _shown(worker, STRANGE)
    for _ in range(3):
        problem = expect_refusal(thief.call("GET", "ping"), ProblemCode.WRONG_CERTIFICATE)
        assert STRANGE in problem.detail and "rebind w" in problem.detail
    expect_refusal(thief.ask_session(), ProblemCode.WRONG_CERTIFICATE)
    honest = _shown(worker, OURS)
    assert honest.call("GET", "ping").status == 200 and honest.session_id == session_id
    assert STRANGE in worker_row(_id_of("w")).alarm
    [entry] = [entry for entry in audit_entries("certificate") if "refused" in entry.detail]
    assert (entry.worker, entry.times) == ("w", 1)


def test_an_unbound_worker_is_bound_by_its_next_session(central: ServedCentral) -> None:
    worker = _joined(central)
    worker.open_session()
    with compat.transaction() as session:
        certificates.rebind(session, "w", by="ann")
    renewed = _shown(worker, STRANGE)
    renewed.open_session()
    assert worker_row(_id_of("w")).certificate == STRANGE
    assert any("was bound to" in entry.detail for entry in audit_entries("certificate"))
    expect_refusal(_shown(worker, OURS).call("GET", "ping"), ProblemCode.WRONG_CERTIFICATE)


@pytest.mark.parametrize("central", [""], indirect=True)
def test_without_the_option_the_header_is_ignored(central: ServedCentral) -> None:
    worker = _joined(central, STRANGE)
    worker.open_session()
    assert worker_row(_id_of("w")).certificate is None
    assert _shown(worker, None).call("GET", "ping").status == 200


def test_a_stolen_credential_without_the_certificate_does_not_make_the_worker_busy(
    new_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__REMOTE__CLIENT_CERTIFICATE_HEADER", HEADER)
    monkeypatch.setenv("AIRFLOW__REMOTE__CALLS_PER_SECOND", "1")
    settings.cache_clear()
    engine = make_engine(new_database("sqlite"))
    with use_ledger(engine, tmp_path), ServedCentral() as served:
        worker = _joined(served)
        worker.open_session()
        thief = _shown(worker, STRANGE)
        statuses = [thief.call("GET", "ping").status for _ in range(300)]
        assert set(statuses) == {403, 503}, "at first its certificate is refused, then every call from its address"
        worker.central = By(served, OURS)  # type: ignore[assignment]
        assert worker.call("GET", "ping").status == 200
    settings.cache_clear()
    engine.dispose()
