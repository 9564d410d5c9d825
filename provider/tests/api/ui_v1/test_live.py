"""The stream of changes: its events, its cost, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from testkit.ledger import record_statements, enlist, queued, running  # isort: skip
from testkit import code, runtimes as runtimes_built  # isort: skip

from airflow_remote_protocol.messages import IntentMode
from airflow_remote_provider import compat
from airflow_remote_provider.api.ui_v1 import pulse
from airflow_remote_provider.ledger import bundles, rollouts, workers
from airflow_remote_provider.ledger.views.pulse import Pulse, Subject, take_pulse
from fastapi import FastAPI
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from .conftest import Users


def _events(text: str) -> list[tuple[str, str]]:
    """Return the events of a stream: their names and data."""
    fields = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n") if block]
    return [(one["event"], one["data"]) for one in fields]


def test_a_change_is_sent_while_the_stream_lasts(users: Users) -> None:
    worker = enlist("edge")
    late = threading.Timer(1.5, lambda: running(worker))
    late.start()
    answer = users.vic.get("/live?lasts_s=8")
    late.join()
    assert answer.headers["content-type"].startswith("text/event-stream") and answer.text.startswith("retry: ")
    assert pulse.EVERY_S <= 1, "the delay that users see"
    first, everything, *later = _events(answer.text)
    assert first == ("beat", "")
    assert everything == ("changed", "accesses audit bundles jobs releases runtimes workers"), (
        "a new client reads everything again"
    )
    assert ("changed", "jobs") in later


def test_a_stream_ends_after_the_requested_time(users: Users) -> None:
    began = time.monotonic()
    users.vic.get("/live?lasts_s=1")
    assert 0.9 < time.monotonic() - began < 60, "without the parameter it lasts five minutes"


@pytest.mark.parametrize("lasts_s", ["0", "301", "nan"])
def test_the_duration_of_a_stream_is_limited(users: Users, lasts_s: str) -> None:
    assert users.vic.get(f"/live?lasts_s={lasts_s}").status_code == 422


def test_the_number_of_streams_is_limited(app: FastAPI, users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "MOST_OF_ONE", 0)
    answer = users.vic.get("/live?lasts_s=1")
    assert answer.status_code == 503 and "poll every few seconds instead" in answer.json()["detail"]


def test_a_pulse_distinguishes_subjects(database: Engine) -> None:
    def pulse_of() -> dict[Subject, object]:
        with compat.transaction() as session:
            return dict(take_pulse(session))

    def changed(before: dict[Subject, object]) -> set[Subject]:
        now = pulse_of()
        return {subject for subject in Subject if now[subject] != before[subject]}

    worker = enlist("edge")
    before = pulse_of()
    assert changed(before) == set()
    queued()
    assert changed(before) == {Subject.JOBS}
    before = pulse_of()
    with compat.transaction() as session:
        workers.set_intent(session, worker.name, IntentMode.PAUSE, by="ann")
    assert changed(before) == {Subject.WORKERS, Subject.AUDIT}


def test_a_pulse_has_builds_rollouts_and_troubles_of_runtimes(database: Engine) -> None:
    def marks() -> tuple[object, ...]:
        with Session(database) as session:
            return take_pulse(session)[Subject.RUNTIMES]

    before = marks()
    runtimes_built.build()
    built = marks()
    assert built != before
    runtimes_built.build()
    with compat.transaction() as session:
        rollouts.roll(session, rollouts.of_runtime("default"), by="ann")
    rolled = marks()
    assert rolled != built
    with compat.transaction() as session:
        rollouts.note_trouble(session, rollouts.of_runtime("default"), "no wheel for musl")
    assert marks() != rolled


def test_a_pulse_has_requests_trees_and_troubles_of_bundles_but_not_each_scan(database: Engine) -> None:
    def pulse_of() -> object:
        with compat.transaction() as session:
            return take_pulse(session)[Subject.BUNDLES]

    def does_change(act: Callable[[Session], object]) -> bool:
        before = pulse_of()
        with compat.transaction() as session:
            act(session)
        return pulse_of() != before

    def scan(session: Session) -> None:
        bundles.note_scan(session, "dags", compat.database_now(session))

    assert does_change(lambda session: code.publish(session, "dags", {"a.py": b""}))
    assert not does_change(scan)
    assert does_change(lambda session: bundles.request(session, "dags"))
    assert does_change(scan), "the request is done"
    assert does_change(lambda session: bundles.note_trouble(session, "dags", "a link leads outside"))
    assert does_change(scan), "the trouble is over"
    assert does_change(lambda session: bundles.want_version(session, "dags", "v1"))


def test_a_pulse_is_one_statement(database: Engine) -> None:
    for number in range(20):
        running(enlist(f"w{number}"))
    with compat.transaction() as session, record_statements(database) as statements:
        take_pulse(session)
    assert len(statements) == 1


def test_the_stream_continues_after_a_database_failure(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, fails = enlist("edge"), iter([True])

    def take(session: Session) -> Pulse:
        if next(fails, False):
            raise OperationalError("SELECT", {}, Exception("gone"))
        return take_pulse(session)

    monkeypatch.setattr(pulse, "take_pulse", take)
    monkeypatch.setattr(pulse, "RETRY_S", 0.5)
    late = threading.Timer(2.0, lambda: running(worker))
    late.start()
    events = _events(users.vic.get("/live?lasts_s=4").text)
    late.join()
    assert ("changed", "jobs") in events


def test_without_streams_no_query_is_made(app: FastAPI, users: Users) -> None:
    users.vic.get("/live?lasts_s=1")
    assert app.state.watch._looking is None and not app.state.watch._streams and not app.state.watch._of_user


def test_all_streams_end_with_the_process(app: FastAPI, users: Users) -> None:
    loop_of = users.client.portal
    assert loop_of is not None
    threading.Timer(0.5, lambda: loop_of.call(app.state.watch.close)).start()
    began = time.monotonic()
    assert users.vic.get("/live?lasts_s=60").status_code == 200
    assert time.monotonic() - began < 50
    assert "shutting down" in users.vic.get("/live").json()["detail"]
