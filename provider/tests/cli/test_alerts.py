"""`airflow remote alerts …`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import incidents
from airflow_remote_provider.ledger.incident_rules import Condition, Decision, IncidentKind

Run = Callable[..., str]

pytestmark = pytest.mark.usefixtures("database")


def test_incidents_are_listed_and_acknowledged(run: Run) -> None:
    with compat.transaction() as session:
        one = Condition(IncidentKind.QUEUE_UNSERVED, "plant", "2 job(s) of the queue plant wait")
        incidents.apply(session, Decision([one], [], []), channels=(), note_seen=False)
    assert "queue-unserved" in run("alerts", "list")
    (listed,) = json.loads(run("alerts", "list", "-o", "json"))
    assert "acknowledged by" in run("alerts", "acknowledge", listed["id"])
    assert json.loads(run("alerts", "show", listed["id"], "-o", "json"))["acknowledged_by"]
    with pytest.raises(SystemExit, match="there is no incident 'nothing'"):
        run("alerts", "acknowledge", "nothing")
