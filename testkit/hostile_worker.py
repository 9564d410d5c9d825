"""A compromised worker against a real central: it joins as any worker does, takes jobs, and sends arbitrary requests about them.

hostile = HostileWorker(central, queue="hostile")
job = hostile.take()
hostile.start(job)
hostile.defer(job, classpath="…", trigger_kwargs={…})
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow

MARKER, EPOCH, SESSION = "airflow-remote-protocol", "airflow-remote-epoch", "airflow-remote-session"
NOW = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Taken:
    """An offered job."""

    job_id: str
    epoch: int
    kind: str
    workload: dict[str, Any]
    tree: str | None = None
    """The digest of the tree that it runs."""

    @property
    def ti(self) -> dict[str, Any]:
        return dict(self.workload["ti"])

    @property
    def at(self) -> str:
        """The path of its task instance in the Execution API."""
        return f"task-instances/{self.ti['id']}"


class HostileWorker:
    """Speaks the protocol without the worker's code. *triggers*: the number of triggers that it offers to host."""

    def __init__(self, central: Airflow, queue: str, *, name: str = "", triggers: int = 0) -> None:
        self.name = name or f"hostile-{uuid.uuid4().hex[:8]}"
        token = central.enrolment_token(queues=queue, name_pattern=self.name)
        self._central = central
        self.client = httpx.Client(base_url=f"{central.url}/remote/v1/", headers={MARKER: "1.0"}, timeout=60)
        enrolled = self.client.post("enrol", json={"name": self.name}, headers={"authorization": f"Bearer {token}"})
        assert enrolled.status_code == 201, enrolled.text
        self.client.headers["authorization"] = f"Bearer {enrolled.json()['credential']}"
        request = {
            "instance_id": uuid.uuid4().hex,
            "boot_id": uuid.uuid4().hex,
            "protocol": "1.0",
            "capabilities": ["task", "callback", "trigger", "bundles"],
            "slots": 8,
            "triggers": triggers,
            "facts": {},
            "jobs": [],
        }
        session = self.client.post("session", json=request)
        assert session.status_code == 200, session.text
        self.client.headers[SESSION] = session.json()["session_id"]
        self._triggers = triggers
        self._held: list[Taken] = []

    def take(self, *, timeout_s: float = 60) -> Taken:
        """Return the next job that central offers."""
        offers: list[dict[str, Any]] = []

        def polled() -> bool:
            held = [{"job_id": job.job_id, "epoch": job.epoch, "phase": "running"} for job in self._held]
            poll = {"free_slots": 1, "free_triggers": self._triggers, "intent_revision": 99, "wait_s": 5.0, "jobs": held}
            reply = self.client.post("poll", json=poll)
            assert reply.status_code == 200, reply.text
            offers.extend(reply.json().get("offers", ()))
            return bool(offers)

        wait_until(polled, timeout_s=timeout_s, what=f"{self.name} is offered a job")
        offer = offers[0]
        tree = (offer.get("tree") or {}).get("digest")
        taken = Taken(offer["job_id"], offer["epoch"], offer["kind"], offer["workload"], tree)
        self._held.append(taken)
        return taken

    def call(self, job: Taken, method: str, path: str, value: object = None, *, body: bytes | None = None) -> httpx.Response:
        """Call the Execution API for the job through the gateway, with *value* as JSON or *body*; *path* is not normalised."""
        content = body if body is not None else (b"" if value is None else json.dumps(value).encode())
        headers = {EPOCH: str(job.epoch), "content-type": "application/json"}
        url = httpx.URL(f"{self.client.base_url}").copy_with(
            raw_path=f"{self.client.base_url.raw_path.decode()}jobs/{job.job_id}/execution/{path}".encode()
        )
        return self.client.request(method, url, content=content, headers=headers)

    def call_protocol(self, job: Taken, path: str, value: object) -> httpx.Response:
        """Make one call about the job that is not part of the Execution API."""
        return self.client.post(f"jobs/{job.job_id}/{path}", json=value, headers={EPOCH: str(job.epoch)})

    def start(self, job: Taken, **changes: Any) -> httpx.Response:
        """Set the task to running; central takes this as the acceptance of the offer."""
        run = {"state": "running", "hostname": "nowhere", "unixname": "x", "pid": 4711, "start_date": NOW}
        return self.call(job, "PATCH", f"{job.at}/run", {**run, **changes})

    def defer(self, job: Taken, classpath: str, **changes: Any) -> httpx.Response:
        """Report that the task waits for this trigger."""
        body = {"state": "deferred", "classpath": classpath, "trigger_kwargs": {}, "next_method": "execute", "next_kwargs": {}}
        return self.call(job, "PATCH", f"{job.at}/state", {**body, **changes})

    def end(self, job: Taken, state: str = "success", **changes: Any) -> httpx.Response:
        body: dict[str, Any] = {"state": state, "end_date": NOW}
        body |= {"task_outlets": [], "outlet_events": []} if state == "success" else {}
        return self.call(job, "PATCH", f"{job.at}/state", {**body, **changes})

    def report(self, job: Taken, outcome: str = "succeeded") -> httpx.Response:
        self._drop(job)
        return self.call_protocol(job, "report", {"outcome": outcome, "exit_code": 0, "log_size": 0})

    def fire(self, trigger: Taken, payload: object) -> httpx.Response:
        """Report an event of a trigger, which ends the trigger's job."""
        self._drop(trigger)
        return self.call_protocol(trigger, "event", {"kind": "fired", "payload": payload})

    def _drop(self, job: Taken) -> None:
        self._held = [held for held in self._held if held.job_id != job.job_id]

    def close(self) -> None:
        self.client.close()


@contextlib.contextmanager
def enrol_hostile_worker(central: Airflow, queue: str, *, triggers: int = 0) -> Iterator[HostileWorker]:
    """Yield a hostile worker that serves *queue*; revoke it at the end, so that its jobs don't disturb other tests."""
    hostile = HostileWorker(central, queue, triggers=triggers)
    try:
        yield hostile
    finally:
        hostile.close()
        central.client().post(f"/remote/ui/v1/workers/{hostile.name}/revoke").raise_for_status()
