"""What an attacker has who took a worker over: its credential, a socket, and time."""

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
"""`[remote] log_bytes_per_job`, as low as it goes."""
PASSWORD = "open-sesame-of-the-plant"
"""Of the connection, and the value of the variable, that are called `plant`."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def problem(self) -> str | None:
        return self.headers.get(PROBLEM_HEADER)


class Attacker:
    """Says whatever it likes in the name of a *worker*, byte for byte: no client library tidies it up."""

    def __init__(self, central: ServedCentral, worker: Caller, offer: Offer) -> None:
        self.central = central
        self.worker = worker
        self.offer = offer
        """Of a job of its own, which it runs."""

    def headers(self, **changes: str | None) -> dict[str, str]:
        """What an honest request of the worker about its job carries, but for *changes* (None: leave it out)."""
        honest: dict[str, str | None] = {
            MARKER_HEADER: PROTOCOL_VERSION,
            "authorization": f"Bearer {self.worker.credential}",
            SESSION_HEADER: self.worker.session_id,
            EPOCH_HEADER: str(self.offer.epoch),
            "content-type": "application/json",
        }
        told = {name.replace("_", "-"): value for name, value in changes.items()}
        return {name: value for name, value in {**honest, **told}.items() if value is not None}

    def say(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """*path*: below `/remote/v1/`; sent as it is."""
        for tries_left in reversed(range(3)):
            try:
                return self._say(method, path, body, headers)
            except ConnectionError:  # central has answered and hung up on a body that it will not read; the answer was lost
                if not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    def _say(self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.central.port, timeout=20)
        try:
            connection.request(method, f"{PREFIX}/{path}", body, dict(self.headers() if headers is None else headers))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def about_job(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        return self.say(method, f"jobs/{self.offer.job_id}/{path}", body, headers)


def take_over(central: ServedCentral) -> Attacker:
    """A worker of its own queue that runs a job, taken over."""
    worker = Caller.at_work(central)
    return Attacker(central, worker, worker.start_job())


def allow(queue: str, kind: GrantKind, *globs: str) -> None:
    """Let central's people grant something to a queue."""
    with compat.transaction() as session:
        queue_policy.allow(session, queue, {kind: globs}, by="a person")
