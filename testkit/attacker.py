"""An attacker that has taken over a worker: it has the worker's credential and sends requests of any form."""

from __future__ import annotations

from testkit.central import PREFIX, ServedCentral  # isort: skip  (first: it points Airflow elsewhere)

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.messages import Offer
from airflow_remote_protocol.version import EPOCH_HEADER, MARKER_HEADER, PROBLEM_HEADER, PROTOCOL_VERSION, SESSION_HEADER
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.ledger import queue_policy

LOG_LIMIT = 65536
"""The lowest value that `[remote] log_bytes_per_job` accepts."""
PASSWORD = "open-sesame-of-the-plant"
"""The password of the connection `plant`, and the value of the variable `plant`."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def problem(self) -> str | None:
        return self.headers.get(PROBLEM_HEADER)


class Attacker:
    """Sends requests as *worker*, byte for byte: no client library normalises them."""

    def __init__(self, central: ServedCentral, worker: Caller, offer: Offer) -> None:
        self.central = central
        self.worker = worker
        self.offer = offer
        """The offer of the job that the worker runs."""

    def headers(self, **changes: str | None) -> dict[str, str]:
        """Return the headers of a correct request about the worker's job, with *changes* (None: leave the header out)."""
        honest: dict[str, str | None] = {
            MARKER_HEADER: PROTOCOL_VERSION,
            "authorization": f"Bearer {self.worker.credential}",
            SESSION_HEADER: self.worker.session_id,
            EPOCH_HEADER: str(self.offer.epoch),
            "content-type": "application/json",
        }
        changed = {name.replace("_", "-"): value for name, value in changes.items()}
        return {name: value for name, value in {**honest, **changed}.items() if value is not None}

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request to *path*, which is below `/remote/v1/` and not normalised."""
        for tries_left in reversed(range(3)):
            try:
                return self._send(method, path, body, headers)
            except ConnectionError:  # central answered and closed the connection without reading the body; the answer was lost
                if not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.central.port, timeout=20)
        try:
            connection.request(method, f"{PREFIX}/{path}", body, dict(self.headers() if headers is None else headers))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def send_about_job(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        return self.send(method, f"jobs/{self.offer.job_id}/{path}", body, headers)


def take_over(central: ServedCentral) -> Attacker:
    """Enrol a worker on a queue of its own, let it run a job, and return its attacker."""
    worker = Caller.connect(central)
    return Attacker(central, worker, worker.start_job())


def allow(queue: str, kind: GrantKind, *globs: str) -> None:
    """Grant *globs* of *kind* to *queue*, as an administrator does."""
    with compat.transaction() as session:
        queue_policy.allow(session, queue, {kind: globs}, by="a person")
