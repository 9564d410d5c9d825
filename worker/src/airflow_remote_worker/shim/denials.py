"""Puts central's reason for a denial into the task's log.

Of a 403 for a connection or a variable the Task SDK tells the task that access is denied, and keeps to itself why and what would
allow it.
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
"""By status: the `reason` by which central's own denials are known, in the Execution API's shape (docs/protocol.md)."""


class DenialsToLog(httpx.BaseTransport):
    """Passes everything on to *inner*; what central denies is told in *log* as well, each reason once."""

    def __init__(self, inner: httpx.BaseTransport, log: Path) -> None:
        self._inner = inner
        self._log = log
        self._told: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        if (reason := reason_of(response.status_code, response.read)) and reason not in self._told:
            self._told.add(reason)
            self.tell(reason)
        return response

    def tell(self, reason: str) -> None:
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
            print(f"denials: can't write to {self._log}: {error}; it would say: {reason}", file=sys.stderr)


def reason_of(status: int, body: Callable[[], bytes]) -> str:
    """Return what central said, if the denial is central's own; else nothing (Airflow's own, of another team's connection)."""
    denial = DENIALS.get(status)
    if denial is None:
        return ""
    try:
        detail = json.loads(body())["detail"]
        return str(detail["message"]) if detail["reason"] == denial else ""
    except (ValueError, KeyError, TypeError):
        return ""
