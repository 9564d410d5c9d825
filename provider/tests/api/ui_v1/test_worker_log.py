"""A worker's own log over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testkit.ledger import enlist  # isort: skip

from airflow_remote_provider.stores.worker_logs import WorkerLogStore

if TYPE_CHECKING:
    from .conftest import People


def _say(worker_id: str, *events: str) -> None:
    body = "".join(f'{{"level": "info", "event": "{event}"}}\n' for event in events).encode()
    WorkerLogStore(1 << 20).append(worker_id, events[0], 0, body)


def test_it_is_read_followed_searched_and_downloaded(people: People) -> None:
    worker = enlist("edge")
    assert people.ann.ok("GET", "/workers/edge/log") == {"items": [], "next": 0, "more": False}
    _say(worker.id, "one", "two")
    lines = people.ann.ok("GET", "/workers/edge/log")
    assert [line["text"] for line in lines["items"]] == [["one"], ["two"]]
    _say(worker.id, "three")
    assert [line["text"] for line in people.ann.ok("GET", f"/workers/edge/log?after={lines['next']}")["items"]] == [["three"]]
    assert [line["text"] for line in people.ann.ok("GET", "/workers/edge/log?contains=TW")["items"]] == [["two"]]
    answer = people.ann("GET", "/workers/edge/log/download")
    assert answer.text == "INFO one\nINFO two\nINFO three\n"
    assert answer.headers["content-disposition"] == 'attachment; filename="edge.log"'


def test_only_who_manages_this_team_s_workers_reads_it(people: People) -> None:
    _say(enlist("edge", team="red").id, "secret")
    assert people.ann.ok("GET", "/workers/edge/log")["items"]
    assert people.tom("GET", "/workers/edge/log").status_code == 404
    assert people.vic("GET", "/workers/edge/log").status_code == 403


@pytest.mark.parametrize("query", ["after=-1", "most=0", "most=1001", "level=loud", f"contains={'x' * 201}"])
def test_what_makes_no_sense_is_refused(people: People, query: str) -> None:
    enlist("edge")
    assert people.ann("GET", f"/workers/edge/log?{query}").status_code == 422
