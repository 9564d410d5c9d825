"""Incidents as users see them."""

from __future__ import annotations

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import incidents
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.incident_rules import Condition, Decision, IncidentKind
from airflow_remote_provider.ledger.views.incidents import list_incidents, show_incident
from airflow_remote_provider.ledger.views.scope import Scope

pytestmark = pytest.mark.usefixtures("database")


def test_a_user_sees_the_incidents_of_their_teams_and_of_no_team() -> None:
    conditions = [Condition(IncidentKind.WORKER_SILENT, name, "", team) for name, team in (("a", "red"), ("b", None))]
    with compat.transaction() as session:
        incidents.apply(session, Decision(conditions, [], []), channels=(), note_seen=False)
        everything = {one.subject: one.id for one in list_incidents(session)}
        assert set(everything) == {"a", "b"}
        blue = Scope(teams={"blue"})
        assert [one.subject for one in list_incidents(session, scope=blue)] == ["b"]
        with pytest.raises(NotFound):
            show_incident(session, everything["a"], scope=blue)
        assert show_incident(session, everything["b"], scope=blue).subject == "b"


def test_open_incidents_come_before_recovered_ones() -> None:
    one, other = (Condition(IncidentKind.WORKER_SILENT, name, "") for name in ("one", "other"))
    with compat.transaction() as session:
        incidents.apply(session, Decision([one], [], []), channels=(), note_seen=False)
        incidents.apply(session, Decision([other], [], [one.key]), channels=(), note_seen=False)
        assert [incident.subject for incident in list_incidents(session, recovered=True)] == ["other", "one"]
