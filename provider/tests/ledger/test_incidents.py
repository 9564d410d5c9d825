"""Incidents in the database: once for each condition, acknowledged by users, delivered in order."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from testkit.ledger import ago, audit_entries  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import incidents
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.incident_rules import Condition, Decision, IncidentKind
from airflow_remote_provider.ledger.incidents import MOST_ATTEMPTS, MOST_EVENTS, Batch
from airflow_remote_provider.ledger.views.incidents import Incident, list_incidents, show_incident
from airflow_remote_provider.models import IncidentRow, NoticeRow

pytestmark = pytest.mark.usefixtures("database")

SILENT = Condition(IncidentKind.WORKER_SILENT, "edge", "the worker edge is silent", "red")


def begin(*conditions: Condition, channels: tuple[str, ...] = ("webhook",)) -> None:
    with compat.transaction() as session:
        assert incidents.apply(session, Decision([*conditions], [], []), channels=channels, note_seen=False)


def recover(*conditions: Condition, channels: tuple[str, ...] = ("webhook",)) -> None:
    with compat.transaction() as session:
        recovered = [one.key for one in conditions]
        assert incidents.apply(session, Decision([], [], recovered), channels=channels, note_seen=False)


def listed(*, recovered: bool = False) -> list[Incident]:
    with compat.transaction() as session:
        return list_incidents(session, recovered=recovered)


def due(*channels: str) -> list[Batch]:
    with compat.transaction() as session:
        return incidents.next_batches(session, channels or ("webhook",))[0]


def pass_time(**ago_: float) -> None:
    with compat.transaction() as session:
        session.execute(update(NoticeRow).values(next_at=ago(**ago_)))


def test_an_incident_begins_and_recovers() -> None:
    begin(SILENT)
    (one,) = listed()
    assert (one.kind, one.subject, one.team, one.recovered_at) == ("worker-silent", "edge", "red", None)
    with compat.transaction() as session:
        assert incidents.known(session) == {SILENT.key: IncidentKind.WORKER_SILENT}
    recover(SILENT)
    assert listed() == []
    (again,) = listed(recovered=True)
    assert again.id == one.id
    assert again.recovered_at is not None
    begin(SILENT)
    assert len(listed(recovered=True)) == 2


def test_a_lasting_condition_is_noted() -> None:
    begin(SILENT)
    with compat.transaction() as session:
        session.execute(update(IncidentRow).values(seen_at=ago(hours=1)))
        assert not incidents.apply(session, Decision([], [SILENT.key], []), channels=(), note_seen=True)
    (one,) = listed()
    assert one.seen_at > ago(minutes=5)


def test_a_user_acknowledges_once_and_the_audit_names_them() -> None:
    begin(SILENT)
    (one,) = listed()
    for user in ("ann", "bob"):
        with compat.transaction() as session:
            incidents.acknowledge(session, one.id, by=user)
    (one,) = listed()
    assert one.acknowledged_by == "ann"
    assert [entry.actor for entry in audit_entries("action")] == ["ann"]


def test_an_unknown_incident_is_explained() -> None:
    with compat.transaction() as session, pytest.raises(NotFound, match="airflow remote alerts list"):
        incidents.acknowledge(session, "nothing", by="ann")
    with compat.transaction() as session, pytest.raises(NotFound, match="airflow remote alerts list"):
        show_incident(session, "nothing")


def test_each_channel_delivers_the_begin_before_the_recovery() -> None:
    begin(SILENT, channels=("webhook", "mail"))
    recover(SILENT, channels=("webhook", "mail"))
    for batch in due("webhook", "mail"):
        assert [event.event for event in batch.events] == ["begun", "recovered"]
        assert [event.recovered_at is None for event in batch.events] == [True, False]
        with compat.transaction() as session:
            incidents.note_delivered(session, batch)
    assert due("webhook", "mail") == []


def test_notices_of_a_channel_that_is_no_longer_configured_are_dropped() -> None:
    begin(SILENT, channels=("webhook", "mail"))
    assert [batch.channel for batch in due("webhook")] == ["webhook"]
    assert [batch.channel for batch in due("webhook", "mail")] == ["webhook"]


def test_a_failed_delivery_waits_and_later_notices_do_not_overtake_it() -> None:
    begin(SILENT)
    (batch,) = due()
    with compat.transaction() as session:
        incidents.note_failed(session, batch, "it answered with status 500")
    recover(SILENT)
    assert due() == []
    assert listed(recovered=True)[0].trouble == "webhook: it answered with status 500"
    pass_time(seconds=1)
    (batch,) = due()
    assert [event.event for event in batch.events] == ["begun", "recovered"]
    with compat.transaction() as session:
        incidents.note_delivered(session, batch)
    assert listed(recovered=True)[0].trouble == ""


def test_a_notice_is_given_up_after_some_attempts() -> None:
    begin(SILENT)
    for _ in range(MOST_ATTEMPTS):
        pass_time(seconds=1)
        (batch,) = due()
        with compat.transaction() as session:
            incidents.note_failed(session, batch, "refused")
    pass_time(seconds=1)
    assert due() == []
    assert listed()[0].trouble == "webhook: refused"


def test_many_incidents_are_delivered_in_parts() -> None:
    begin(*(Condition(IncidentKind.WORKER_SILENT, f"w{number}", "") for number in range(MOST_EVENTS + 1)))
    (batch,) = due()
    assert len(batch.events) == MOST_EVENTS
    with compat.transaction() as session:
        incidents.note_delivered(session, batch)
    (batch,) = due()
    assert len(batch.events) == 1


def test_recovered_incidents_are_deleted_after_the_days_kept() -> None:
    begin(SILENT)
    recover(SILENT)
    begin(SILENT)
    for days, left in ((1, 2), (-1, 1)):
        with compat.transaction() as session:
            incidents.purge(session, older_than=timedelta(days=days))
        assert len(listed(recovered=True)) == left
