"""Incidents over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import incidents
from airflow_remote_provider.ledger.incident_rules import Condition, Decision, IncidentKind

if TYPE_CHECKING:
    from .conftest import Users


def _begin(name: str, team: str | None = None) -> None:
    with compat.transaction() as session:
        one = Condition(IncidentKind.WORKER_SILENT, name, f"the worker {name} is silent", team)
        incidents.apply(session, Decision([one], [], []), channels=(), note_seen=False)


def test_a_manager_acknowledges_an_incident_and_all_see_it(users: Users) -> None:
    _begin("edge")
    (one,) = users.vic.ok("GET", "/incidents")["items"]
    assert (one["kind"], one["subject"], one["acknowledged_by"]) == ("worker-silent", "edge", None)
    path = f"/incidents/{one['id']}"
    assert users.vic("POST", f"{path}/acknowledge").status_code == 403
    assert users.ann.ok("POST", f"{path}/acknowledge")["acknowledged_by"] == "ann"
    assert users.vic.ok("GET", path)["acknowledged_by"] == "ann"


def test_incidents_of_other_teams_are_hidden(users: Users) -> None:
    _begin("edge", team="red")
    (one,) = users.ann.ok("GET", "/incidents")["items"]
    assert users.tom.ok("GET", "/incidents")["items"] == []
    assert users.tom("POST", f"/incidents/{one['id']}/acknowledge").status_code == 404


def test_recovered_incidents_are_listed_on_request(users: Users) -> None:
    _begin("edge")
    with compat.transaction() as session:
        incidents.apply(session, Decision([], [], [*incidents.known(session)]), channels=(), note_seen=False)
    assert users.vic.ok("GET", "/incidents")["items"] == []
    (one,) = users.vic.ok("GET", "/incidents?recovered=true")["items"]
    assert one["recovered_at"] is not None
