"""A small worker that sends the requests of a check. The check decides which answers are correct."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any
from urllib.parse import quote

import msgspec

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.conformance.central import PARKED_S, PROMPT_S, QUIET_S, CentralUnderTest, Response
from airflow_remote_protocol.conformance.expect import describe, expect_message, expect_no_content
from airflow_remote_protocol.messages import (
    Credential,
    Decline,
    Enrolled,
    Enrolment,
    Facts,
    HeldJob,
    IntentMode,
    JobPhase,
    Offer,
    Outcome,
    Poll,
    PollReply,
    Report,
    Session,
    SessionRequest,
    TaskWorkload,
)
from airflow_remote_protocol.version import EPOCH_HEADER, MAJOR, MARKER_HEADER, PROTOCOL_VERSION, SESSION_HEADER, Capability

PARKING_S = 0.3
"""The time for a poll to arrive at central and be parked there."""

EVERYTHING = tuple(capability.value for capability in Capability if capability not in (Capability.RUNTIMES, Capability.RELEASES))
"""Of a worker with a runtime and a release of its own: with `runtimes`, it would get only jobs whose runtime it has reported."""


class Caller:
    """One enrolled worker, reduced to its requests. It keeps its credential and session, and checks only markers of answers."""

    def __init__(self, central: CentralUnderTest, enrolled: Enrolled) -> None:
        self.central = central
        self.name = enrolled.name
        self.queues = enrolled.queues
        self.credential = enrolled.credential
        self.instance_id = unique("instance")
        self.session: Session | None = None

    @classmethod
    def enrol(cls, central: CentralUnderTest, queues: Sequence[str] = ()) -> Caller:
        """Enrol a worker with a new name, on *queues* or on a new queue."""
        token = central.enrolment_token(list(queues) or [unique("queue")])
        return cls(central, expect_message(enrol(central, token=token, name=unique("worker")), Enrolled, status=201))

    @classmethod
    def connect(cls, central: CentralUnderTest, queues: Sequence[str] = (), *, slots: int = 8) -> Caller:
        """Enrol a worker and open its session."""
        caller = cls.enrol(central, queues)
        caller.open_session(slots=slots)
        return caller

    @property
    def queue(self) -> str:
        return self.queues[0]

    @property
    def session_id(self) -> str:
        assert self.session is not None, "this caller has no session yet"
        return self.session.session_id

    def with_session(self, session: Session) -> Caller:
        """Return the same worker with another session."""
        other = copy(self)
        other.session = session
        return other

    def call(
        self,
        method: str,
        path: str,
        message: msgspec.Struct | None = None,
        *,
        body: bytes = b"",
        epoch: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request as this worker, with *message* encoded or *body* unchanged."""
        sent = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {self.credential}"}
        if self.session is not None:
            sent[SESSION_HEADER] = self.session.session_id
        if epoch is not None:
            sent[EPOCH_HEADER] = str(epoch)
        if message is not None:
            sent["content-type"] = "application/json"
            body = encode(message)
        return ask(self.central, method, path, headers={**sent, **(headers or {})}, body=body)

    def next_credential(self) -> Caller:
        """Request the next credential; return the same worker with it."""
        other = copy(self)
        other.credential = expect_message(self.call("POST", "credential"), Credential).credential
        return other

    def ask_session(
        self,
        *,
        slots: int = 8,
        jobs: Sequence[HeldJob] = (),
        instance_id: str = "",
        boot_id: str = "",
        protocol: str = PROTOCOL_VERSION,
        capabilities: Iterable[str] = EVERYTHING,
        triggers: int = 0,
        platform: str = "",
        ephemeral: bool = False,
        max_jobs: int | None = None,
    ) -> Response:
        """Request a session, as a daemon that has just started, or as the one of *boot_id*."""
        return self.call(
            "POST",
            "session",
            SessionRequest(
                instance_id=instance_id or self.instance_id,
                boot_id=boot_id or unique("boot"),
                protocol=protocol,
                capabilities=list(capabilities),
                slots=slots,
                triggers=triggers,
                facts=Facts(hostname="conformance", platform=platform, release_platform=platform),
                jobs=list(jobs),
                time=time.time(),
                ephemeral=ephemeral,
                max_jobs=max_jobs,
            ),
        )

    def open_session(
        self,
        *,
        slots: int = 8,
        jobs: Sequence[HeldJob] = (),
        boot_id: str = "",
        capabilities: Iterable[str] = EVERYTHING,
        triggers: int = 0,
        platform: str = "",
        ephemeral: bool = False,
        max_jobs: int | None = None,
    ) -> Session:
        """Open a session and use it from now on."""
        response = self.ask_session(
            slots=slots,
            jobs=jobs,
            boot_id=boot_id,
            capabilities=capabilities,
            triggers=triggers,
            platform=platform,
            ephemeral=ephemeral,
            max_jobs=max_jobs,
        )
        self.session = expect_message(response, Session)
        return self.session

    def ask_poll(
        self,
        *,
        free_slots: int = 0,
        wait_s: float = QUIET_S,
        jobs: Sequence[HeldJob] = (),
        revision: int | None = None,
        task_settings: str | None = None,
        runtimes: str | None = None,
        release: int | None = None,
    ) -> Response:
        """Poll once. *task_settings*, *runtimes*, *release*: the revisions, and the serial, that the worker reports."""
        known = self.session.intent.revision if self.session else 0
        asked = Poll(
            free_slots=free_slots,
            intent_revision=known if revision is None else revision,
            wait_s=wait_s,
            jobs=list(jobs),
            task_settings_revision=task_settings,
            runtimes_revision=runtimes,
            release_serial=release,
        )
        return self.call("POST", "poll", asked)

    def end_session(self) -> Response:
        return self.call("POST", "session/end")

    def poll(
        self, *, free_slots: int = 0, wait_s: float = QUIET_S, jobs: Sequence[HeldJob] = (), revision: int | None = None
    ) -> PollReply:
        return expect_message(self.ask_poll(free_slots=free_slots, wait_s=wait_s, jobs=jobs, revision=revision), PollReply)

    def await_offer(self, *, free_slots: int = 1, jobs: Sequence[HeldJob] = ()) -> Offer:
        """Poll until an offer comes, and ignore other replies."""
        deadline = time.monotonic() + PROMPT_S
        revision = None
        while (left_s := deadline - time.monotonic()) > 0:
            reply = self.poll(free_slots=free_slots, wait_s=left_s, jobs=jobs, revision=revision)
            if reply.offers:
                return reply.offers[0]
            if reply.intent is not None:
                revision = reply.intent.revision
        raise AssertionError(f"no offer came within {PROMPT_S} s, although a suitable job is queued")

    def await_intent(self, mode: IntentMode, *, slots: int | None = None) -> int:
        """Poll until the intent is *mode* and *slots*; return its revision. Central's processes learn of it with a delay."""
        deadline = time.monotonic() + PROMPT_S
        while time.monotonic() < deadline:
            intent = self.poll(wait_s=PROMPT_S, revision=0).intent
            assert intent is not None, "the reply to a poll with revision 0 must contain the intent"
            if (intent.mode, intent.slots) == (mode, slots):
                return intent.revision
            time.sleep(QUIET_S / 4)
        raise AssertionError(f"the intent {mode.value} with slots {slots} was not sent within {PROMPT_S} s")

    def take_job(self) -> Offer:
        """Queue a job on this worker's queue, which is otherwise empty, and return its offer."""
        job_id = self.central.enqueue(self.queue)
        offer = self.await_offer()
        assert offer.job_id == job_id, f"expected an offer of {job_id}, the only queued job of {self.queue}, got {offer}"
        return offer

    def start_job(self) -> Offer:
        """Take a job and accept it explicitly."""
        offer = self.take_job()
        expect_no_content(self.accept(offer))
        return offer

    def start_task(self) -> Offer:
        """Take a job and accept it with the first call of its task."""
        offer = self.take_job()
        response = self.run_task(offer)
        assert response.status == 200, f"the task must start, got {describe(response)}"
        return offer

    def make_all_calls_without_a_job(self) -> Iterator[Response]:
        """Make all the calls that need no job, one after the other."""
        yield self.call("GET", "ping")
        yield self.ask_poll()
        yield self.ask_session()
        yield self.call("POST", "credential")

    def accept(self, offer: Offer) -> Response:
        return self.call("POST", f"jobs/{offer.job_id}/accept", epoch=offer.epoch)

    def decline(self, offer: Offer) -> Response:
        return self.call("POST", f"jobs/{offer.job_id}/decline", Decline(reason="the disk is full"), epoch=offer.epoch)

    def report(self, offer: Offer, outcome: Outcome = Outcome.SUCCEEDED, exit_code: int | None = 0) -> Response:
        return self.call("POST", f"jobs/{offer.job_id}/report", Report(outcome=outcome, exit_code=exit_code), epoch=offer.epoch)

    def log(self, offer: Offer, offset: int | str, text: bytes, *, gzipped: bool = False) -> Response:
        headers = {"content-type": "application/octet-stream"} | ({"content-encoding": "gzip"} if gzipped else {})
        return self.call("POST", f"jobs/{offer.job_id}/log?offset={offset}", body=text, epoch=offer.epoch, headers=headers)

    def worker_log(self, stretch: str, offset: int | str, text: bytes, *, gzipped: bool = False) -> Response:
        headers = {"content-type": "application/octet-stream"} | ({"content-encoding": "gzip"} if gzipped else {})
        return self.call("POST", f"log?stretch={stretch}&offset={offset}", body=text, headers=headers)

    def execution(self, offer: Offer, method: str, path: str, content: object = None) -> Response:
        body = b"" if content is None else json.dumps(content).encode()
        headers = {"content-type": "application/json"} if body else {}
        return self.call(method, f"jobs/{offer.job_id}/execution/{path}", body=body, epoch=offer.epoch, headers=headers)

    def run_task(self, offer: Offer, *, pid: int = 4711) -> Response:
        """Make the task's first call to the Execution API."""
        content = {
            "state": "running",
            "hostname": "conformance",
            "unixname": "nobody",
            "pid": pid,
            "start_date": "2026-01-01T00:00:00Z",
        }
        return self.execution(offer, "PATCH", f"task-instances/{ti_id(offer)}/run", content)

    def end_task(self, offer: Offer, *, state: str = "success") -> Response:
        """Make the task's last call to the Execution API."""
        content: dict[str, Any] = {"state": state}
        if state == "deferred":
            content |= {"classpath": "site.Trigger", "trigger_kwargs": {}, "next_method": "resume", "next_kwargs": {}}
        else:
            content |= {"end_date": "2026-01-01T00:00:01Z", "task_outlets": [], "outlet_events": []}
        return self.execution(offer, "PATCH", f"task-instances/{ti_id(offer)}/state", content)


class ParkedPoll:
    """A poll that waits in its own thread while the check continues."""

    def __init__(
        self,
        caller: Caller,
        *,
        free_slots: int = 0,
        jobs: Sequence[HeldJob] = (),
        runtimes: str | None = None,
        release: int | None = None,
    ) -> None:
        self._answer: Response | None = None
        self._failure: BaseException | None = None

        def park() -> None:
            try:
                self._answer = caller.ask_poll(
                    free_slots=free_slots, jobs=jobs, wait_s=PARKED_S, runtimes=runtimes, release=release
                )
            except BaseException as error:  # raised in the check's thread, by `ends_within`
                self._failure = error

        self._thread = threading.Thread(target=park, name=f"parked poll of {caller.name}", daemon=True)
        self._thread.start()
        time.sleep(PARKING_S)

    def ends_within(self, seconds: float, why: str) -> Response:
        """Wait for the answer. *why* it should come completes the text of the failure."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the parked poll was not answered within {seconds} s, although {why}"
        if self._failure is not None:
            raise self._failure
        assert self._answer is not None, "the parked poll ended without an answer"
        return self._answer

    def replies_within(self, seconds: float, why: str) -> PollReply:
        return expect_message(self.ends_within(seconds, why), PollReply)


def unique(word: str) -> str:
    """Return a name that no other check uses."""
    return f"{word}-{uuid.uuid4().hex[:12]}"


def held(offer: Offer, phase: JobPhase = JobPhase.RUNNING) -> HeldJob:
    return HeldJob(job_id=offer.job_id, epoch=offer.epoch, phase=phase)


def ti_id(offer: Offer) -> str:
    return str(decode(TaskWorkload, bytes(offer.workload)).ti["id"])


def own_path(offer: Offer) -> str:
    """Return the part of the paths of the job's XComs that names its Dag, run and task."""
    ti = decode(TaskWorkload, bytes(offer.workload)).ti
    return "/".join(quote(str(ti[name]), safe="") for name in ("dag_id", "run_id", "task_id"))


def ask(central: CentralUnderTest, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"") -> Response:
    """Send a request, and check that the answer has the marker, whatever its status."""
    response = central.request(method, path, headers=headers, body=body)
    marker = response.headers.get(MARKER_HEADER, "")
    assert marker.split(".")[0] == str(MAJOR), (
        f"{method} {path} was answered {response.status} with {MARKER_HEADER}: {marker!r}; every response must have this header"
    )
    return response


def enrol(central: CentralUnderTest, *, token: str, name: str, ephemeral: bool = False) -> Response:
    headers = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {token}", "content-type": "application/json"}
    return ask(central, "POST", "enrol", headers=headers, body=encode(Enrolment(name=name, ephemeral=ephemeral)))
