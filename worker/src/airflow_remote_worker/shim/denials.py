"""Writes central's reason for a denial into the task's log.

For a 403 on a connection or a variable, the Task SDK reports to the task only that access is denied, not why or what would allow
it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from http import HTTPStatus
from pathlib import Path

from airflow_remote_worker.shim.compat import httpx

DENIALS: dict[int, str] = {HTTPStatus.FORBIDDEN: "not_granted", HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_much_written"}
"""Status → the `reason` that marks central's own denials, in the Execution API's format (docs/protocol.md)."""


class DenialsToLog(httpx.BaseTransport):
    """Passes every request on to *inner*, and writes the reasons of central's denials into *log*, each reason once."""

    def __init__(self, inner: httpx.BaseTransport, log: Path) -> None:
        self._inner = inner
        self._log = log
        self._logged: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        if (reason := reason_of(response.status_code, response.read)) and reason not in self._logged:
            self._logged.add(reason)
            self.append(reason)
        return response

    def append(self, reason: str) -> None:
        """Add a line to the task's log."""
        line = {
            "timestamp": datetime.now(tz=timezone.utc).isoformat(),
            "level": "error",
            "event": reason,
            "logger": "airflow_remote_worker.shim",
        }
        try:
            with self._log.open("ab") as stream:
                stream.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            print(f"denials: can't write to {self._log} ({error}): {reason}", file=sys.stderr)


def reason_of(status: int, body: Callable[[], bytes]) -> str:
    """Return central's reason for its own denial; empty for others (such as Airflow's, of another team's connection)."""
    denial = DENIALS.get(status)
    if denial is None:
        return ""
    try:
        detail = json.loads(body())["detail"]
        return str(detail["message"]) if detail["reason"] == denial else ""
    except (ValueError, KeyError, TypeError):
        return ""
