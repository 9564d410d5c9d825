"""A task that repeatedly reads a variable through the gateway and records the time of each answer.

    python -m bench.gateway_probe HOST PORT < credentials.json

The worker of the first credential takes a job from its queue. Prints `ready` when the first answers have arrived. When its
standard input is closed, prints its result as one line of JSON: `calls`, each a moment (CLOCK_MONOTONIC, the same for all
processes of this computer) and the seconds to the answer, and `errors`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from http.client import HTTPConnection, HTTPException

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.messages import Facts, HeldJob, JobPhase, Message, Offer, Poll, PollReply, Session, SessionRequest
from airflow_remote_protocol.version import EPOCH_HEADER, MARKER_HEADER, PROBLEM_HEADER, PROTOCOL_VERSION, SESSION_HEADER

EVERY_S = 0.02
WARM_CALLS = 20
TIMEOUT_S = 60.0
PATH = "execution/variables/bench"
"""The variable does not exist: the Execution API's handler queries the database and answers with 404."""


class Probe:
    """One worker with one job, on one connection."""

    def __init__(self, host: str, port: int, credential: str) -> None:
        self._connection = HTTPConnection(host, port, timeout=TIMEOUT_S)
        self._headers = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {credential}"}
        self._job = ""
        self.calls: list[tuple[float, float]] = []
        self.errors: list[str] = []

    def take_job(self) -> None:
        request = SessionRequest(str(uuid.uuid4()), str(uuid.uuid4()), PROTOCOL_VERSION, ["task"], 1, Facts(hostname="probe"))
        session = decode(Session, self._send("POST", "session", request)[2])
        self._headers[SESSION_HEADER] = session.session_id
        offer = self._await_offer(session.intent.revision)
        self._headers[EPOCH_HEADER] = str(offer.epoch)
        self._job = f"jobs/{offer.job_id}"
        status, _, body = self._send("POST", f"{self._job}/accept")
        if status != 204:
            raise RuntimeError(f"central refused the acceptance of the probe's job: {status} {body[:200]!r}")
        self._send("POST", "poll", Poll(0, session.intent.revision, 0, [HeldJob(offer.job_id, offer.epoch, JobPhase.RUNNING)]))

    def _await_offer(self, revision: int) -> Offer:
        for _ in range(10):
            reply = decode(PollReply, self._send("POST", "poll", Poll(1, revision, 5.0))[2])
            if reply.offers:
                return reply.offers[0]
        raise RuntimeError("central did not offer the probe's job")

    def read(self) -> None:
        """Read once and record the duration, or the error."""
        began = time.monotonic()
        try:
            status, problem, body = self._send("GET", f"{self._job}/{PATH}")
        except (OSError, HTTPException) as error:
            self._connection.close()
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        self.calls.append((began, time.monotonic() - began))
        if status != 404 or problem is not None:
            self.errors.append(f"{status} {problem} {body[:100]!r}")

    def _send(self, method: str, path: str, message: Message | None = None) -> tuple[int, str | None, bytes]:
        headers = self._headers | ({"content-type": "application/json"} if message is not None else {})
        self._connection.request(method, f"/remote/v1/{path}", None if message is None else encode(message), headers)
        answer = self._connection.getresponse()
        return answer.status, answer.headers.get(PROBLEM_HEADER), answer.read()


def main() -> int:
    probe = Probe(sys.argv[1], int(sys.argv[2]), json.loads(sys.stdin.readline())[0])
    probe.take_job()
    for _ in range(WARM_CALLS):
        probe.read()
    probe.calls.clear()
    print("ready", flush=True)
    end = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), end.set()), name="end", daemon=True).start()
    while not end.wait(EVERY_S):
        probe.read()
    print(json.dumps({"calls": probe.calls, "errors": probe.errors}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
