"""History over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from testkit.ledger import enlist, queued  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties.recorder import Recorder

if TYPE_CHECKING:
    from .conftest import Users


def _record() -> None:
    with compat.transaction() as session:
        Recorder(silent_after=timedelta(seconds=90)).record(session)


def test_recorded_values_are_shown(users: Users) -> None:
    enlist("edge", ["q"], slots=3)
    queued("q")
    _record()
    (queue,) = users.vic.ok("GET", "/history/queue?last_s=3600")["items"]
    assert (queue["name"], queue["span_s"], queue["values"]["queued"]) == ("q", 60, [1])
    (fleet,) = users.vic.ok("GET", "/history/fleet")["items"]
    assert (fleet["values"]["online"], fleet["values"]["slots"]) == ([1], [3])
    assert users.vic.ok("GET", "/history/queue?name=other")["items"] == []
    assert users.vic.ok("GET", "/history/worker?name=edge")["items"] == []


@pytest.mark.parametrize("wanted", ["nothing", "queue?last_s=1", "queue?last_s=1e9", "queue?most_points=1", "queue?name="])
def test_a_history_that_is_never_stored_is_refused(users: Users, wanted: str) -> None:
    assert users.vic("GET", f"/history/{wanted}").status_code == 422
