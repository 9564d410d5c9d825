"""Keeps a task's terminal state back until its process has ended: a job's lease allows no other call after that state.

The Task SDK sends the state first and then runs what may call central again: success, skip and retry callbacks, listeners,
operator links (each an XCom), rendered fields (`task_runner.finalize`). Central refuses all of that once it has the state
(ADR 0023), so it gets the state last. The task is told at once that its state went through; Airflow learns of it some
milliseconds later, or when the callbacks are done.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable

from airflow_remote_worker.shim.compat import httpx

STATE = re.compile(r"/execution/task-instances/[^/?]+/state")
LONGEST_S = 20.0
"""What `[core] task_success_overtime` is unless it is set: Airflow itself gives a task no longer to end after its state. A state
that was kept back for so long is sent although the process still runs; what that still calls is refused."""
ACKNOWLEDGEMENT = "server_terminated"
"""The state by which Task SDK 1.4 acknowledges a stop. Central knows that the process has ended from the job's report."""
TRIES = 2
"""As often as the Task SDK sends a state that a broken server did not take; each time includes the pauses of the transport."""


class StateLast(httpx.BaseTransport):
    """Passes everything on to *inner* but the task's state, which waits for :meth:`send`. *tell* writes into the task's log."""

    def __init__(
        self, inner: httpx.BaseTransport, tell: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner = inner
        self._tell = tell
        self._clock = clock
        self._kept: httpx.Request | None = None
        self._kept_at = 0.0
        self._is_over = False
        """The process has ended, or has had its time: states pass."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "PATCH" or not STATE.fullmatch(request.url.path):
            return self._inner.handle_request(request)
        if _state(request.read()) == ACKNOWLEDGEMENT:
            return httpx.Response(204)
        if self._is_over:
            return self._inner.handle_request(request)
        if self._kept is not None:  # as Airflow answers
            return httpx.Response(409, json={"detail": {"reason": "invalid_state", "message": "The task has ended already."}})
        self._kept, self._kept_at = request, self._clock()
        return httpx.Response(204)

    def send_if_due(self) -> None:
        """Send a state that has waited for as long as one may."""
        if self._kept is not None and self._clock() - self._kept_at >= LONGEST_S:
            self.send()

    def send(self) -> None:
        """Send the state that was kept back, if there is one; what comes later passes at once."""
        self._is_over = True
        request, self._kept = self._kept, None
        if request is None:
            return
        response = self._inner.handle_request(request)
        for _ in range(TRIES - 1):
            if response.status_code < 500:
                break
            response = self._inner.handle_request(request)
        if response.status_code >= 400:
            said = response.read().decode("utf-8", "replace")[:500]
            print(f"last call: {request.url.path}: {response.status_code} {said}", file=sys.stderr)
            self._tell(f"Airflow did not take the state in which this task ended: {response.status_code} {said}")


def _state(body: bytes) -> object:
    try:
        told = json.loads(body)
    except ValueError:
        return None
    return told.get("state") if isinstance(told, dict) else None
