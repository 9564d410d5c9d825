"""Worker logs over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testkit.ledger import enlist  # isort: skip

from airflow_remote_provider.stores.worker_logs import WorkerLogStore

if TYPE_CHECKING:
    from .conftest import Users


def _say(worker_id: str, *events: str) -> None:
    body = "".join(f'{{"level": "info", "event": "{event}"}}\n' for event in events).encode()
    WorkerLogStore(1 << 20).append(worker_id, stretch=events[0], offset=0, body=body)


def test_the_worker_log_is_read_followed_searched_and_downloaded(users: Users) -> None:
    worker = enlist("edge")
    assert users.ann.ok("GET", "/workers/edge/log") == {"items": [], "next": 0, "more": False}
    _say(worker.id, "one", "two")
    lines = users.ann.ok("GET", "/workers/edge/log")
    assert [line["text"] for line in lines["items"]] == [["one"], ["two"]]
    _say(worker.id, "three")
    assert [line["text"] for line in users.ann.ok("GET", f"/workers/edge/log?after={lines['next']}")["items"]] == [["three"]]
    assert [line["text"] for line in users.ann.ok("GET", "/workers/edge/log?contains=TW")["items"]] == [["two"]]
    answer = users.ann("GET", "/workers/edge/log/download")
    assert answer.text == "INFO one\nINFO two\nINFO three\n"
    assert answer.headers["content-disposition"] == 'attachment; filename="edge.log"'


def test_only_a_manager_of_the_workers_team_reads_its_log(users: Users) -> None:
    _say(enlist("edge", team="red").id, "secret")
    assert users.ann.ok("GET", "/workers/edge/log")["items"]
    assert users.tom("GET", "/workers/edge/log").status_code == 404
    assert users.vic("GET", "/workers/edge/log").status_code == 403


@pytest.mark.parametrize("query", ["after=-1", "most=0", "most=1001", "level=loud", f"contains={'x' * 201}"])
def test_invalid_requests_are_refused(users: Users, query: str) -> None:
    enlist("edge")
    assert users.ann("GET", f"/workers/edge/log?{query}").status_code == 422
