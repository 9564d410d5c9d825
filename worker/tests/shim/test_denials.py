"""Central's denials in a task's log."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from airflow_remote_worker.shim.denials import DenialsToLog

WHY = "Not granted to this job: connection 'plant'; …"


def _client(log: Path, status: int, body: object) -> httpx.Client:
    answer = httpx.MockTransport(lambda _: httpx.Response(status, json=body))
    return httpx.Client(base_url="http://central.invalid", transport=DenialsToLog(answer, log))


def _lines(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_bytes().splitlines()] if log.exists() else []


@pytest.mark.parametrize(("status", "reason"), [(403, "not_granted"), (413, "too_much_written")])
def test_a_denial_is_logged_once_and_passed_on(tmp_path: Path, status: int, reason: str) -> None:
    log = tmp_path / "task.log"
    body = {"detail": {"reason": reason, "message": WHY}}
    with _client(log, status, body) as client:
        for _ in range(3):
            answer = client.get("connections/plant")
            assert (answer.status_code, answer.json()) == (status, body)
    (line,) = _lines(log)
    assert (line["level"], line["event"]) == ("error", WHY)
    assert line["timestamp"] and line["logger"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"detail": {"reason": "not_granted", "message": WHY}}),
        (404, {"detail": {"reason": "not_found", "message": "no such connection"}}),
        (403, {"detail": {"reason": "too_much_written", "message": "under another status"}}),
        (413, {"detail": "the Execution API's own"}),
        (403, {"detail": {"reason": "access_denied", "message": "another team's"}}),
        (403, {"detail": "Token subject does not match"}),
        (403, ["nonsense"]),
    ],
)
def test_other_errors_are_passed_on_silently(tmp_path: Path, status: int, body: object) -> None:
    log = tmp_path / "task.log"
    with _client(log, status, body) as client:
        assert client.get("connections/plant").status_code == status
    assert _lines(log) == []


def test_the_reason_is_printed_if_the_log_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _client(tmp_path / "no" / "task.log", 403, {"detail": {"reason": "not_granted", "message": WHY}}) as client:
        assert client.get("connections/plant").status_code == 403
    assert WHY in capsys.readouterr().err
