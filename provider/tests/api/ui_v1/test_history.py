"""History over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from testkit.ledger import enlist, queued  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties.recorder import Recorder

if TYPE_CHECKING:
    from .conftest import People


def _record() -> None:
    with compat.transaction() as session:
        Recorder(silent_after=timedelta(seconds=90)).record(session)


def test_what_was_measured_is_shown(people: People) -> None:
    enlist("edge", ["q"], slots=3)
    queued("q")
    _record()
    (queue,) = people.vic.ok("GET", "/history/queue?last_s=3600")["items"]
    assert (queue["name"], queue["span_s"], queue["values"]["queued"]) == ("q", 60, [1])
    (fleet,) = people.vic.ok("GET", "/history/fleet")["items"]
    assert (fleet["values"]["online"], fleet["values"]["slots"]) == ([1], [3])
    assert people.vic.ok("GET", "/history/queue?name=other")["items"] == []
    assert people.vic.ok("GET", "/history/worker?name=edge")["items"] == []


@pytest.mark.parametrize("wanted", ["nothing", "queue?last_s=1", "queue?last_s=1e9", "queue?most_points=1", "queue?name="])
def test_what_was_never_kept_is_refused(people: People, wanted: str) -> None:
    assert people.vic("GET", f"/history/{wanted}").status_code == 422
