"""Holds a task's terminal state back until its process has ended: a job's lease allows no other call after that state.

The Task SDK sends the state first, and then runs code that may call central again: success, skip and retry callbacks, listeners,
operator links (each an XCom), rendered fields (`task_runner.finalize`). Central refuses such calls once it has the state
(ADR 0023), so the state is sent last. The task is answered at once that its state was accepted; Airflow receives it some
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
"""The default of `[core] task_success_overtime`: Airflow gives a task no longer to end after its state. A state that was held
back for so long is sent although the process still runs; its later calls are refused."""
ACKNOWLEDGEMENT = "server_terminated"
"""The state by which Task SDK 1.4 acknowledges a stop. It is not sent: central learns of the end from the job's report."""
TRIES = 2
"""As often as the Task SDK sends a state after server errors; each try includes the pauses of the transport."""


class StateLast(httpx.BaseTransport):
    """Passes every request on to *inner* except the task's state, which waits for :meth:`send`. *write_log* appends to the task's
    log."""

    def __init__(
        self, inner: httpx.BaseTransport, write_log: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner = inner
        self._write_log = write_log
        self._clock = clock
        self._kept: httpx.Request | None = None
        self._kept_at = 0.0
        self._is_over = False
        """The process has ended or has had its time: further states are passed on."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "PATCH" or not STATE.fullmatch(request.url.path):
            return self._inner.handle_request(request)
        if _state(request.read()) == ACKNOWLEDGEMENT:
            return httpx.Response(204)
        if self._is_over:
            return self._inner.handle_request(request)
        if self._kept is not None:  # Airflow's own answer
            return httpx.Response(409, json={"detail": {"reason": "invalid_state", "message": "The task has ended already."}})
        self._kept, self._kept_at = request, self._clock()
        return httpx.Response(204)

    def send_if_due(self) -> None:
        """Send a state that was held back for `LONGEST_S`."""
        if self._kept is not None and self._clock() - self._kept_at >= LONGEST_S:
            self.send()

    def send(self) -> None:
        """Send the state that was held back, if any; later states are passed on at once."""
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
            reason = response.read().decode("utf-8", "replace")[:500]
            print(f"last call: {request.url.path}: {response.status_code} {reason}", file=sys.stderr)
            self._write_log(f"Airflow did not accept the state in which this task ended: {response.status_code} {reason}")


def _state(body: bytes) -> object:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content.get("state") if isinstance(content, dict) else None
