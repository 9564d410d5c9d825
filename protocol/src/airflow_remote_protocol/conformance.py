"""The behaviour that every central must show: one function per sentence of docs/protocol.md, and a small worker to ask with.

Owns what is right to answer. It refuses to own a transport: whoever runs the checks brings a :class:`CentralUnderTest`, so the
fake central and the real app pass the same ones::

    @pytest.mark.parametrize("check", conformance.ALL, ids=conformance.sentence)
    def test_central_conforms(check, central):
        check(central)

A check enrols its own workers on its own queues, so all of them may share one central. This is the only module of the package
that waits and reads a clock, and it is longer than our files usually are because it is a list: nothing in it depends on
anything but the first part, up to the first `check_`.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from airflow_remote_protocol.codec import decode, decode_problem, encode
from airflow_remote_protocol.errors import STATUS, Decision, Problem, ProblemCode
from airflow_remote_protocol.messages import (
    Credential,
    Decline,
    Enrolled,
    Enrolment,
    Facts,
    HeldJob,
    IntentMode,
    JobKind,
    JobPhase,
    LogAppended,
    Offer,
    Outcome,
    Poll,
    PollReply,
    Pong,
    Report,
    Session,
    SessionRequest,
    Stop,
    StopReason,
    TaskWorkload,
)
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, make_token
from airflow_remote_protocol.version import (
    EPOCH_HEADER,
    MAJOR,
    MARKER_HEADER,
    PROBLEM_HEADER,
    PROTOCOL_VERSION,
    SESSION_HEADER,
    Capability,
)

PROMPT_S = 3.0
"""What "at once" allows. Central looks for ended tasks once a second; the rest is for a busy machine."""

REVOKED_S = 2.0
"""How long a revoked worker's open poll may live on."""

QUIET_S = 0.4
"""How long we listen before we believe that nothing comes."""

PARKED_S = 6.0
"""The wait of a poll that must be ended by something else. Well above PROMPT_S, to tell the two apart."""

PARKING_S = 0.3
"""How long a poll gets to arrive at central and be parked there."""

MAX_REOFFERS = 3
"""docs/protocol.md, "Sessions, polls, leases"."""

MAX_LOG_PACKED = 1 << 20
MAX_LOG_UNPACKED = 8 << 20
"""docs/protocol.md, the `log` route."""

EVERYTHING = tuple(capability.value for capability in Capability)

CALLBACK = {"path": "alerts.tell", "kwargs": {}, "dag_rel_path": "dag.py", "bundle": {"name": "b", "version": None}}
"""The fields of a callback's workload that don't name it."""

M = TypeVar("M", bound=msgspec.Struct)


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class CentralUnderTest(Protocol):
    """A central, and what only its test harness can do to it. It must allow polls of `PARKED_S`."""

    def request(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Ask `<central>/remote/v1/<path>` and wait for the answer. Called from several threads at once."""
        ...

    def enrolment_token(self, queues: Sequence[str], *, name_pattern: str = "*", uses: int = 1, expires_s: float = 3600.0) -> str:
        """Make a token. With `expires_s=0` it has expired by the time it is returned."""
        ...

    def enqueue(
        self,
        queue: str,
        *,
        slots: int = 1,
        priority: int = 1,
        workload: dict[str, Any] | None = None,
        kind: JobKind = JobKind.TASK,
    ) -> str:
        """Queue a job and return its id. Without a workload: a task that could run (`run` through the gateway succeeds)."""
        ...

    def end_task(self, job_id: str) -> None:
        """Set the task's state as a person would. Central may take a moment to notice."""
        ...

    def move_task_on(self, job_id: str) -> None:
        """Let the scheduler go on with a task that has said its terminal state: it is another job's by now, and runs."""
        ...

    def expire_offer(self, job_id: str) -> None:
        """Let the deadline of the job's offer pass; on return central has acted on it."""
        ...

    def lose_job(self, job_id: str) -> None:
        """Give a running job up, as if its worker had been silent for longer than the job allows."""
        ...

    def pass_grace(self, job_id: str) -> None:
        """Let the time pass for which a running job may be missing from what its worker lists; on return central has acted."""
        ...

    def skip_delay(self, job_id: str) -> None:
        """Let the delay pass that a declined or expired job has before its next offer."""
        ...

    def job_state(self, job_id: str) -> str: ...

    def job_epoch(self, job_id: str) -> int: ...

    def log_bytes(self, job_id: str) -> bytes:
        """Return the job's log as central holds it."""
        ...

    def set_intent(self, worker_name: str, mode: IntentMode, *, slots: int | None = None) -> None: ...

    def revoke_worker(self, worker_name: str) -> None: ...

    def suspend_worker(self, worker_name: str) -> None: ...

    def unsuspend_worker(self, worker_name: str) -> None: ...

    def ask_to_rotate(self, worker_name: str) -> None:
        """Want the worker's credential replaced now."""
        ...

    def pass_handover(self, worker_name: str) -> None:
        """Let the time pass for which a credential that was replaced is still taken."""
        ...

    def expire_credential(self, worker_name: str) -> None:
        """Let the life of the worker's present credential be over."""
        ...

    def is_flagged(self, worker_name: str) -> bool:
        """Whether people are told to look at this worker."""
        ...


Check = Callable[[CentralUnderTest], None]


def sentence(check: Check) -> str:
    """Return what *check* claims, for people."""
    return check.__name__.removeprefix("check_").replace("_", " ")


class Caller:
    """One enrolled worker, reduced to what it says. It remembers its credential and session, and checks nothing but markers."""

    def __init__(self, central: CentralUnderTest, enrolled: Enrolled) -> None:
        self.central = central
        self.name = enrolled.name
        self.queues = enrolled.queues
        self.credential = enrolled.credential
        self.instance_id = unique("instance")
        self.session: Session | None = None

    @classmethod
    def enrol(cls, central: CentralUnderTest, queues: Sequence[str] = ()) -> Caller:
        """Enrol a worker of a new name; on a queue of its own unless told otherwise."""
        token = central.enrolment_token(list(queues) or [unique("queue")])
        return cls(central, succeeded(enrol(central, token, unique("worker")), Enrolled, status=201))

    @classmethod
    def at_work(cls, central: CentralUnderTest, queues: Sequence[str] = (), *, slots: int = 8) -> Caller:
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
        """Return the same worker speaking under another session."""
        other = Caller(self.central, Enrolled("", self.name, self.credential, self.queues))
        other.instance_id, other.session = self.instance_id, session
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
        """Ask as this worker; *message*, or *body* as it is."""
        sent = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {self.credential}"}
        if self.session is not None:
            sent[SESSION_HEADER] = self.session.session_id
        if epoch is not None:
            sent[EPOCH_HEADER] = str(epoch)
        if message is not None:
            sent["content-type"] = "application/json"
            body = encode(message)
        return ask(self.central, method, path, {**sent, **(headers or {})}, body)

    def next_credential(self) -> Caller:
        """Ask for the next credential; return the same worker speaking with it."""
        other = Caller(self.central, Enrolled("", self.name, self.credential, self.queues))
        other.instance_id, other.session = self.instance_id, self.session
        other.credential = succeeded(self.call("POST", "credential"), Credential).credential
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
    ) -> Response:
        """Ask for a session, as a daemon that has just started unless *boot_id* says which one."""
        return self.call(
            "POST",
            "session",
            SessionRequest(
                instance_id=instance_id or self.instance_id,
                boot_id=boot_id or unique("boot"),
                protocol=protocol,
                capabilities=list(capabilities),
                slots=slots,
                facts=Facts(hostname="conformance"),
                jobs=list(jobs),
                time=time.time(),
            ),
        )

    def open_session(self, *, slots: int = 8, jobs: Sequence[HeldJob] = (), boot_id: str = "") -> Session:
        """Open a session and speak under it from now on."""
        self.session = succeeded(self.ask_session(slots=slots, jobs=jobs, boot_id=boot_id), Session)
        return self.session

    def ask_poll(
        self, *, free_slots: int = 0, wait_s: float = QUIET_S, jobs: Sequence[HeldJob] = (), revision: int | None = None
    ) -> Response:
        known = self.session.intent.revision if self.session else 0
        asked = Poll(
            free_slots=free_slots, intent_revision=known if revision is None else revision, wait_s=wait_s, jobs=list(jobs)
        )
        return self.call("POST", "poll", asked)

    def poll(
        self, *, free_slots: int = 0, wait_s: float = QUIET_S, jobs: Sequence[HeldJob] = (), revision: int | None = None
    ) -> PollReply:
        return succeeded(self.ask_poll(free_slots=free_slots, wait_s=wait_s, jobs=jobs, revision=revision), PollReply)

    def await_offer(self, *, free_slots: int = 1, jobs: Sequence[HeldJob] = ()) -> Offer:
        """Poll until an offer comes, through whatever else central has to say."""
        deadline = time.monotonic() + PROMPT_S
        revision = None
        while (left_s := deadline - time.monotonic()) > 0:
            reply = self.poll(free_slots=free_slots, wait_s=left_s, jobs=jobs, revision=revision)
            if reply.offers:
                return reply.offers[0]
            if reply.intent is not None:
                revision = reply.intent.revision
        raise AssertionError(f"no offer came within {PROMPT_S} s, although a fitting job is queued")

    def accept(self, offer: Offer) -> Response:
        return self.call("POST", f"jobs/{offer.job_id}/accept", epoch=offer.epoch)

    def decline(self, offer: Offer) -> Response:
        return self.call("POST", f"jobs/{offer.job_id}/decline", Decline(reason="the disk is full"), epoch=offer.epoch)

    def report(self, offer: Offer, outcome: Outcome = Outcome.SUCCEEDED, exit_code: int | None = 0) -> Response:
        return self.call("POST", f"jobs/{offer.job_id}/report", Report(outcome=outcome, exit_code=exit_code), epoch=offer.epoch)

    def log(self, offer: Offer, offset: int | str, text: bytes, *, gzipped: bool = False) -> Response:
        headers = {"content-type": "application/octet-stream"} | ({"content-encoding": "gzip"} if gzipped else {})
        return self.call("POST", f"jobs/{offer.job_id}/log?offset={offset}", body=text, epoch=offer.epoch, headers=headers)

    def execution(self, offer: Offer, method: str, path: str, content: object = None) -> Response:
        body = b"" if content is None else json.dumps(content).encode()
        headers = {"content-type": "application/json"} if body else {}
        return self.call(method, f"jobs/{offer.job_id}/execution/{path}", body=body, epoch=offer.epoch, headers=headers)

    def run_task(self, offer: Offer, *, pid: int = 4711) -> Response:
        """The task's first call to the Execution API."""
        content = {
            "state": "running",
            "hostname": "conformance",
            "unixname": "nobody",
            "pid": pid,
            "start_date": "2026-01-01T00:00:00Z",
        }
        return self.execution(offer, "PATCH", f"task-instances/{ti_id(offer)}/run", content)

    def end_task(self, offer: Offer, *, state: str = "success") -> Response:
        """The task's last call to the Execution API."""
        content = {"state": state, "end_date": "2026-01-01T00:00:01Z", "task_outlets": [], "outlet_events": []}
        return self.execution(offer, "PATCH", f"task-instances/{ti_id(offer)}/state", content)

    def start_job(self) -> Offer:
        """Queue a job on this worker's queue, take it and accept it."""
        self.central.enqueue(self.queue)
        offer = self.await_offer()
        done(self.accept(offer))
        return offer


class ParkedPoll:
    """A poll that waits in a thread of its own while the check goes on."""

    def __init__(self, caller: Caller, *, free_slots: int = 0, jobs: Sequence[HeldJob] = ()) -> None:
        self._answer: Response | None = None
        self._failure: BaseException | None = None

        def park() -> None:
            try:
                self._answer = caller.ask_poll(free_slots=free_slots, jobs=jobs, wait_s=PARKED_S)
            except BaseException as error:  # handed to the check's own thread, in `ends_within`
                self._failure = error

        self._thread = threading.Thread(target=park, name=f"parked poll of {caller.name}", daemon=True)
        self._thread.start()
        time.sleep(PARKING_S)

    def ends_within(self, seconds: float, why: str) -> Response:
        """Wait for the answer; *why* it should come completes the complaint if it doesn't."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the parked poll was not answered within {seconds} s, although {why}"
        if self._failure is not None:
            raise self._failure
        assert self._answer is not None, "the parked poll ended without an answer"
        return self._answer

    def replies_within(self, seconds: float, why: str) -> PollReply:
        return succeeded(self.ends_within(seconds, why), PollReply)


def unique(word: str) -> str:
    """Return a name that no other check uses."""
    return f"{word}-{uuid.uuid4().hex[:12]}"


def held(offer: Offer, phase: JobPhase = JobPhase.RUNNING) -> HeldJob:
    return HeldJob(job_id=offer.job_id, epoch=offer.epoch, phase=phase)


def ti_id(offer: Offer) -> str:
    return str(decode(TaskWorkload, bytes(offer.workload)).ti["id"])


def ask(central: CentralUnderTest, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
    """Ask, and insist on the marker, whatever the answer."""
    response = central.request(method, path, headers=headers, body=body)
    marker = response.headers.get(MARKER_HEADER, "")
    assert marker.split(".")[0] == str(MAJOR), (
        f"{method} {path} was answered {response.status} with {MARKER_HEADER}: {marker!r}; it belongs on every response"
    )
    return response


def enrol(central: CentralUnderTest, token: str, name: str) -> Response:
    headers = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {token}", "content-type": "application/json"}
    return ask(central, "POST", "enrol", headers, encode(Enrolment(name=name)))


def succeeded(response: Response, kind: type[M], *, status: int = 200) -> M:
    """Insist on a success and return its message."""
    assert response.status == status, f"expected {status} with a {kind.__name__}, got {_shown(response)}"
    return decode(kind, response.body)


def done(response: Response) -> None:
    """Insist on 204 without a body."""
    assert response.status == 204, f"expected 204, got {_shown(response)}"
    assert not response.body, f"a 204 has no body, this one has {response.body[:80]!r}"


def refused(response: Response, *codes: ProblemCode) -> Problem:
    """Insist on a complete refusal with one of *codes* and return it."""
    problem = decode_problem(response.body)
    wanted = " or ".join(code.value for code in codes)
    assert problem is not None, f"expected the problem {wanted}, got {_shown(response)}"
    assert problem.code in {code.value for code in codes}, f"expected the problem {wanted}, got {_shown(response)}"
    assert response.headers.get(PROBLEM_HEADER) == problem.code, f"{PROBLEM_HEADER} must say {problem.code}: {_shown(response)}"
    assert response.status == STATUS[problem.known_code] == problem.status, (
        f"the problem {problem.code} goes with status {STATUS[problem.known_code]}, got {_shown(response)}"
    )
    content_type = response.headers.get("content-type", "")
    assert content_type.startswith("application/problem+json"), f"a problem's content-type is not {content_type!r}"
    return problem


def in_state(central: CentralUnderTest, job_id: str, *states: JobState) -> None:
    state = central.job_state(job_id)
    assert state in {wanted.value for wanted in states}, (
        f"the job is {state}, it should be {' or '.join(wanted.value for wanted in states)}"
    )


def _shown(response: Response) -> str:
    return f"{response.status} {response.headers.get(PROBLEM_HEADER, '')} {response.body[:200]!r}"


# Every request, every response


def check_every_response_carries_the_marker(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    asked = [
        caller.call("GET", "ping"),
        caller.call("GET", "no/such/route"),
        caller.call("GET", "poll"),
        caller.call("POST", "poll", body=b"not json"),
        caller.call("POST", f"jobs/{uuid.uuid4()}/accept", epoch=1),
        ask(central, "GET", "ping", {}),
    ]
    # `ask` insists on the marker; here is only left to see that these were answered in the intended ways.
    assert [response.status < 400 for response in asked] == [True] + [False] * 5, "only the first of these is a success"


def check_an_unknown_route_is_not_found(central: CentralUnderTest) -> None:
    refused(Caller.at_work(central).call("POST", "no/such/route"), ProblemCode.NOT_FOUND)


def check_every_route_without_a_credential_is_unauthorized(central: CentralUnderTest) -> None:
    for method, path in _all_routes():
        headers = {MARKER_HEADER: PROTOCOL_VERSION, SESSION_HEADER: unique("session"), EPOCH_HEADER: "1"}
        refused(ask(central, method, path, headers), ProblemCode.UNAUTHORIZED)


def check_a_mangled_credential_is_unauthorized(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    caller.credential = caller.credential[:-1] + ("0" if caller.credential[-1] != "0" else "1")
    _is_unauthorized_everywhere(caller)


def check_an_unknown_credential_is_unauthorized(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    caller.credential = make_token(TokenKind.WORKER, uuid.uuid4().bytes.ljust(TOKEN_BYTES, b"\0"))
    _is_unauthorized_everywhere(caller)


def check_an_enrolment_token_is_no_credential(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    caller.credential = central.enrolment_token([caller.queue])
    _is_unauthorized_everywhere(caller)


def check_a_credential_is_no_enrolment_token(central: CentralUnderTest) -> None:
    refused(enrol(central, Caller.enrol(central).credential, unique("worker")), ProblemCode.UNAUTHORIZED)


def check_unknown_fields_are_ignored(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    body = b'{"free_slots": 0, "intent_revision": 0, "wait_s": 0.1, "jobs": [], "mood": {"from": "version 1.7"}}'
    succeeded(caller.call("POST", "poll", body=body), PollReply)


def check_unknown_meanings_are_invalid(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    jobs = [{"job_id": offer.job_id, "epoch": offer.epoch, "phase": "dreaming"}]
    poll = {"free_slots": 0, "intent_revision": 0, "wait_s": 0.1, "jobs": jobs}
    refused(caller.call("POST", "poll", body=json.dumps(poll).encode()), ProblemCode.INVALID)
    path = f"jobs/{offer.job_id}/report"
    refused(caller.call("POST", path, body=b'{"outcome": "vanished"}', epoch=offer.epoch), ProblemCode.INVALID)
    in_state(central, offer.job_id, JobState.RUNNING)


def check_a_body_that_is_no_message_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    nested = b'{"free_slots": 0, "intent_revision": 0, "wait_s": 0, "mood": ' + b"[" * 100_000
    many = b'{"free_slots": "many", "intent_revision": 0, "wait_s": 0}'
    negative = b'{"free_slots": -1, "intent_revision": 0, "wait_s": 0}'
    for body in (b"", b"not json", b"[]", b"\xff\xfe", many, negative, nested):
        refused(caller.call("POST", "poll", body=body), ProblemCode.INVALID)


def check_a_job_call_without_an_epoch_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    central.enqueue(caller.queue)
    offer = caller.await_offer()
    refused(caller.call("POST", f"jobs/{offer.job_id}/accept"), ProblemCode.INVALID)
    refused(caller.call("POST", f"jobs/{offer.job_id}/accept", headers={EPOCH_HEADER: "first"}), ProblemCode.INVALID)
    in_state(central, offer.job_id, JobState.OFFERED)


def check_ping_tells_the_name_and_the_time(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    pong = succeeded(caller.call("GET", "ping"), Pong)
    assert pong.name == caller.name, f"ping says {pong.name}, the worker is {caller.name}"
    assert pong.time > 1_700_000_000, f"{pong.time} is not a wall clock in seconds since the epoch"


def _is_unauthorized_everywhere(caller: Caller) -> None:
    for method, path in _all_routes():
        if path != "enrol":
            refused(caller.call(method, path, epoch=1), ProblemCode.UNAUTHORIZED)


def _all_routes() -> list[tuple[str, str]]:
    job = f"jobs/{uuid.uuid4()}"
    return [
        ("POST", "enrol"),
        ("POST", "credential"),
        ("POST", "session"),
        ("POST", "poll"),
        ("GET", "ping"),
        ("POST", "leave"),
        ("POST", f"{job}/accept"),
        ("POST", f"{job}/decline"),
        ("POST", f"{job}/report"),
        ("POST", f"{job}/log?offset=0"),
        ("GET", f"{job}/execution/variables/any"),
    ]


# Enrolment


def check_enrolment_gives_a_credential_for_the_tokens_queues(central: CentralUnderTest) -> None:
    queues = [unique("queue"), unique("queue")]
    enrolled = succeeded(enrol(central, central.enrolment_token(queues), unique("worker")), Enrolled, status=201)
    assert sorted(enrolled.queues) == sorted(queues), f"the token was for {queues}, the worker got {enrolled.queues}"
    succeeded(Caller(central, enrolled).call("GET", "ping"), Pong)


def check_an_enrolment_token_works_as_often_as_it_says(central: CentralUnderTest) -> None:
    for uses in (1, 2):
        token = central.enrolment_token([unique("queue")], uses=uses)
        for _ in range(uses):
            succeeded(enrol(central, token, unique("worker")), Enrolled, status=201)
        refused(enrol(central, token, unique("worker")), ProblemCode.TOKEN_REFUSED)


def check_an_expired_enrolment_token_is_refused(central: CentralUnderTest) -> None:
    token = central.enrolment_token([unique("queue")], expires_s=0)
    refused(enrol(central, token, unique("worker")), ProblemCode.TOKEN_REFUSED)


def check_a_mangled_enrolment_token_is_unauthorized(central: CentralUnderTest) -> None:
    token = central.enrolment_token([unique("queue")])
    refused(enrol(central, token[:-2], unique("worker")), ProblemCode.UNAUTHORIZED)
    succeeded(enrol(central, token, unique("worker")), Enrolled, status=201)


def check_a_name_that_the_token_does_not_allow_is_refused_and_costs_no_use(central: CentralUnderTest) -> None:
    token = central.enrolment_token([unique("queue")], name_pattern="ship-*")
    refused(enrol(central, token, unique("plane")), ProblemCode.TOKEN_REFUSED)
    succeeded(enrol(central, token, unique("ship")), Enrolled, status=201)


def check_a_taken_name_is_refused_and_costs_no_use(central: CentralUnderTest) -> None:
    first = Caller.enrol(central)
    token = central.enrolment_token([unique("queue")])
    refused(enrol(central, token, first.name), ProblemCode.NAME_TAKEN)
    succeeded(first.call("GET", "ping"), Pong)
    succeeded(enrol(central, token, unique("worker")), Enrolled, status=201)


def check_a_name_that_is_no_name_is_invalid(central: CentralUnderTest) -> None:
    token = central.enrolment_token([unique("queue")])
    for name in ("", "../etc", "two words", "a-line-end\n", "x" * 101):
        refused(enrol(central, token, name), ProblemCode.INVALID)


# Sessions


def check_a_newer_minor_version_is_welcome(central: CentralUnderTest) -> None:
    session = succeeded(Caller.enrol(central).ask_session(protocol=f"{MAJOR}.99"), Session)
    assert session.protocol.split(".")[0] == str(MAJOR), f"central answers in protocol {session.protocol}"


def check_another_major_version_is_outdated(central: CentralUnderTest) -> None:
    for protocol in (f"{MAJOR + 1}.0", "0.9", "newest"):
        refused(Caller.enrol(central).ask_session(protocol=protocol), ProblemCode.OUTDATED)


def check_a_call_without_a_session_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    refused(caller.ask_poll(), ProblemCode.SESSION_TAKEN, ProblemCode.INVALID)


def check_a_restarted_worker_takes_over_at_once(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    old = caller.with_session(caller.open_session(jobs=[held(offer)]))
    parked = ParkedPoll(old, jobs=[held(offer)])
    caller.open_session(jobs=[held(offer)])
    refused(parked.ends_within(PROMPT_S, "a new session took over"), ProblemCode.SESSION_TAKEN)
    refused(old.ask_poll(), ProblemCode.SESSION_TAKEN)
    refused(old.log(offer, 0, b"late"), ProblemCode.SESSION_TAKEN)
    refused(old.report(offer), ProblemCode.SESSION_TAKEN)
    in_state(central, offer.job_id, JobState.RUNNING)
    done(caller.report(offer))


def check_a_clone_is_refused_and_disturbs_nobody(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    parked = ParkedPoll(caller, free_slots=1)
    refused(caller.ask_session(instance_id=unique("instance")), ProblemCode.CLONED)
    job_id = central.enqueue(caller.queue)
    reply = parked.replies_within(PROMPT_S, "a job was queued; the refused clone must not have ended the poll")
    assert [offer.job_id for offer in reply.offers] == [job_id], "the first machine must work on as if nothing had happened"


def check_the_same_start_of_a_worker_may_open_a_session_again(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    boot = unique("boot")
    first = caller.open_session(boot_id=boot)
    offer = caller.start_job()
    again = caller.open_session(boot_id=boot, jobs=[held(offer)])  # the reply was lost, or central's database was restored
    assert again.session_id != first.session_id and not again.stops, "a session is new each time, and costs no job"
    done(caller.report(offer))


def check_of_two_copies_of_a_machine_the_first_works_on_and_the_later_is_refused(central: CentralUnderTest) -> None:
    first = Caller.enrol(central)
    boots = unique("first"), unique("later")
    first.open_session(boot_id=boots[0])
    offer = first.start_job()
    later = first.with_session(succeeded(first.ask_session(boot_id=boots[1]), Session))  # what a restart looks like, too
    refused(first.ask_poll(), ProblemCode.SESSION_TAKEN)
    in_state(central, offer.job_id, JobState.RUNNING)
    first.open_session(boot_id=boots[0], jobs=[held(offer)])
    refused(later.ask_poll(), ProblemCode.SESSION_TAKEN)
    for _ in range(2):
        refused(later.ask_session(boot_id=boots[1]), ProblemCode.CLONED)
    assert not first.poll(jobs=[held(offer)]).stops, "the first one's job must go on"
    central.pass_grace(offer.job_id)
    in_state(central, offer.job_id, JobState.RUNNING)
    done(first.report(offer))


def check_a_running_job_that_a_new_session_does_not_list_is_lost_after_a_grace(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    kept, forgotten = caller.start_job(), caller.start_job()
    session = caller.open_session(jobs=[held(kept)])
    assert not session.stops, "the job that is listed and ours must go on"
    for offer in (kept, forgotten):
        in_state(central, offer.job_id, JobState.RUNNING)
        central.pass_grace(offer.job_id)
    in_state(central, kept.job_id, JobState.RUNNING)
    in_state(central, forgotten.job_id, JobState.LOST)


def check_a_job_that_is_listed_again_within_the_grace_is_not_lost(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    caller.open_session()
    assert not caller.poll(jobs=[held(offer)]).stops, "it is this worker's still"
    central.pass_grace(offer.job_id)
    in_state(central, offer.job_id, JobState.RUNNING)
    done(caller.report(offer))


def check_a_new_session_stops_jobs_that_are_not_its_workers(central: CentralUnderTest) -> None:
    other = Caller.at_work(central)
    theirs = other.start_job()
    caller = Caller.at_work(central)
    ours = caller.start_job()
    unknown = HeldJob(job_id=str(uuid.uuid4()), epoch=1, phase=JobPhase.RUNNING)
    stale = HeldJob(job_id=ours.job_id, epoch=ours.epoch - 1, phase=JobPhase.RUNNING)
    session = caller.open_session(jobs=[held(ours), held(theirs), unknown, stale])
    stopped = {(stop.job_id, stop.epoch) for stop in session.stops if stop.reason is StopReason.SUPERSEDED}
    wanted = {(entry.job_id, entry.epoch) for entry in (held(theirs), unknown, stale)}
    assert stopped == wanted, f"listed but not ours must come back as superseded: {wanted}, got {session.stops}"
    in_state(central, theirs.job_id, JobState.RUNNING)


def check_a_stop_outlives_a_restart_of_the_worker(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    central.end_task(offer.job_id)
    stops = caller.open_session(jobs=[held(offer)]).stops
    stops = stops or caller.poll(jobs=[held(offer)], wait_s=PROMPT_S).stops
    assert [stop.job_id for stop in stops] == [offer.job_id], "a restarted worker must still hear that a person ended its task"


# Polls and offers


def check_an_idle_poll_waits_and_then_replies_empty(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    asked_at = time.monotonic()
    reply = caller.poll(free_slots=8, wait_s=0.6)
    waited_s = time.monotonic() - asked_at
    assert not (reply.offers or reply.stops or reply.intent), f"nothing happened, but central says {reply}"
    assert 0.5 <= waited_s <= 0.6 + PROMPT_S, f"asked to wait 0.6 s, central took {waited_s:.2f} s"


def check_an_offer_reaches_a_parked_poll_at_once(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    parked = ParkedPoll(caller, free_slots=1)
    job_id = central.enqueue(caller.queue)
    reply = parked.replies_within(PROMPT_S, "a job was queued")
    assert [offer.job_id for offer in reply.offers] == [job_id], f"expected an offer of {job_id}, got {reply}"
    in_state(central, job_id, JobState.OFFERED)


def check_an_offer_says_all_that_the_worker_needs_and_no_secret(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue, slots=2)
    offer = caller.await_offer(free_slots=2)
    assert (offer.job_id, offer.queue, offer.slots) == (job_id, caller.queue, 2), f"this is not the job that was queued: {offer}"
    assert offer.epoch == central.job_epoch(job_id) >= 1, "the offer's epoch is the job's, and starts at 1"
    assert offer.deadline_s > 0, "an offer has a deadline"
    assert offer.stop_after_s > 0, "an offer says how long the job may run without contact"
    workload = decode(TaskWorkload, bytes(offer.workload))
    assert workload.ti.get("id"), "the workload names its task instance"
    assert b'"token"' not in bytes(offer.workload), "no token of Airflow's ever leaves central"


def check_a_worker_never_gets_more_than_its_free_slots(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central, slots=8)
    for _ in range(3):
        central.enqueue(caller.queue, slots=2)
    first = caller.poll(free_slots=3, wait_s=PROMPT_S)
    assert [offer.slots for offer in first.offers] == [2], f"one job of two slots fits into three free ones, got {first.offers}"
    again = caller.poll(free_slots=1, jobs=[held(first.offers[0], JobPhase.PREPARING)])
    assert not again.offers, "a job of two slots does not fit into one free one"
    none = caller.poll(free_slots=0, jobs=[held(first.offers[0], JobPhase.PREPARING)])
    assert not none.offers, "no free slot, no offer"


def check_a_worker_never_gets_more_than_its_sessions_slots(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central, slots=1)
    caller.start_job()
    central.enqueue(caller.queue)
    assert not caller.poll(free_slots=5).offers, "the session has one slot and it is taken, whatever the poll says"


def check_a_worker_never_gets_more_than_its_intents_slots(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central, slots=8)
    central.set_intent(caller.name, IntentMode.SERVE, slots=1)
    caller.start_job()
    central.enqueue(caller.queue)
    reply = caller.poll(free_slots=5, revision=_revision_told(caller, IntentMode.SERVE, slots=1))
    assert not reply.offers, "people allowed one slot and it is taken"


def check_a_worker_only_gets_jobs_of_its_queues(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    foreign = central.enqueue(unique("queue"), priority=100)
    own = central.enqueue(caller.queue)
    offers = caller.poll(free_slots=5, wait_s=PROMPT_S).offers
    assert [offer.job_id for offer in offers] == [own], f"only {own} is on this worker's queue, got {offers}"
    in_state(central, foreign, JobState.QUEUED)


def check_a_kind_of_job_goes_only_to_whom_can_run_it(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    caller.session = succeeded(caller.ask_session(capabilities=["task"]), Session)
    job_id = central.enqueue(caller.queue, kind=JobKind.CALLBACK, priority=9, workload=CALLBACK)
    task = central.enqueue(caller.queue)
    offers = caller.poll(free_slots=5, wait_s=PROMPT_S).offers
    assert [offer.job_id for offer in offers] == [task], f"this worker runs tasks only, got {offers}"
    in_state(central, job_id, JobState.QUEUED)
    other = Caller.at_work(central, [caller.queue])
    offer = other.await_offer()
    assert (offer.job_id, offer.kind) == (job_id, JobKind.CALLBACK), f"expected the callback, got {offer}"
    done(other.accept(offer))
    in_state(central, job_id, JobState.RUNNING)
    refusal = other.execution(offer, "PATCH", f"task-instances/{task}/run", {})
    assert PROBLEM_HEADER in refusal.headers, f"a callback has no task to run, got {_shown(refusal)}"
    done(other.report(offer))
    in_state(central, job_id, JobState.SUCCEEDED)


def check_jobs_are_offered_by_priority_and_then_by_age(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    jobs = {}
    for label, priority in (("old", 1), ("young", 1), ("urgent", 9), ("last", -3)):
        jobs[central.enqueue(caller.queue, priority=priority)] = label
        time.sleep(0.01)  # ages that any database's clock can tell apart
    order: list[Offer] = []
    for _ in jobs:
        order.append(caller.await_offer(free_slots=1, jobs=[held(offer, JobPhase.PREPARING) for offer in order]))
    assert [jobs[offer.job_id] for offer in order] == ["urgent", "old", "young", "last"], (
        f"the highest priority first, then the oldest; got {[jobs[offer.job_id] for offer in order]}"
    )


def check_a_job_too_big_for_a_worker_does_not_block_the_others(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central, slots=2)
    big = central.enqueue(caller.queue, slots=5, priority=100)
    small = central.enqueue(caller.queue)
    assert caller.await_offer(free_slots=2).job_id == small, "the small job must pass the big one"
    in_state(central, big, JobState.QUEUED)


def check_no_job_is_offered_twice(central: CentralUnderTest) -> None:
    queue = unique("queue")
    callers = [Caller.at_work(central, [queue]) for _ in range(2)]
    parked = [ParkedPoll(caller, free_slots=8) for caller in callers]
    jobs = {central.enqueue(queue) for _ in range(6)}
    holding = [poll.replies_within(PARKED_S + PROMPT_S, "its wait is over").offers for poll in parked]
    deadline = time.monotonic() + 2 * PROMPT_S
    while sum(len(offers) for offers in holding) < len(jobs) and time.monotonic() < deadline:
        for caller, offers in zip(callers, holding, strict=True):
            listed = [held(offer, JobPhase.PREPARING) for offer in offers]
            offers += caller.poll(free_slots=8 - len(offers), jobs=listed).offers
    offered = [offer.job_id for offers in holding for offer in offers]
    assert sorted(offered) == sorted(jobs), f"each of {len(jobs)} jobs goes to exactly one worker, offered were {offered}"


def check_a_newer_poll_ends_the_older_one(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    older = ParkedPoll(caller, free_slots=1)
    newer = ParkedPoll(caller, free_slots=1)
    reply = older.replies_within(PROMPT_S, "the same session polled again")
    assert not (reply.offers or reply.stops or reply.intent), f"the older poll's reply must be empty, it says {reply}"
    job_id = central.enqueue(caller.queue)
    reply = newer.replies_within(PROMPT_S, "a job was queued")
    assert [offer.job_id for offer in reply.offers] == [job_id], "the newer poll gets the work"


# Leases


def check_accepting_is_idempotent(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    in_state(central, offer.job_id, JobState.RUNNING)
    done(caller.accept(offer))
    in_state(central, offer.job_id, JobState.RUNNING)
    assert central.job_epoch(offer.job_id) == offer.epoch, "accepting does not raise the epoch"


def check_an_older_epoch_is_superseded_and_changes_nothing(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    old = caller.await_offer()
    central.expire_offer(job_id)
    central.skip_delay(job_id)
    new = caller.await_offer()
    assert new.epoch > old.epoch, f"every offer raises the epoch: {old.epoch}, then {new.epoch}"
    for response in _all_job_calls(caller, old):
        refused(response, ProblemCode.SUPERSEDED)
    in_state(central, job_id, JobState.OFFERED)
    assert central.log_bytes(job_id) == b"", "an older epoch must not write into the log"
    stops = caller.poll(jobs=[held(old, JobPhase.PREPARING), held(new, JobPhase.PREPARING)], wait_s=PROMPT_S).stops
    assert [(stop.epoch, stop.reason) for stop in stops] == [(old.epoch, StopReason.SUPERSEDED)], (
        f"listing the old lease must bring back a stop for it and only for it, got {stops}"
    )
    done(caller.accept(new))


def check_an_expired_offer_is_dead_and_comes_back_at_a_higher_epoch(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    central.expire_offer(job_id)
    in_state(central, job_id, JobState.QUEUED)
    for response in _all_job_calls(caller, offer):
        refused(response, ProblemCode.SUPERSEDED)
    in_state(central, job_id, JobState.QUEUED)
    central.skip_delay(job_id)
    again = caller.await_offer()
    assert (again.job_id, again.epoch > offer.epoch) == (job_id, True), "the same job again, at a higher epoch"


def check_a_job_that_nobody_accepts_fails_in_the_end(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    for _ in range(1 + MAX_REOFFERS):
        in_state(central, job_id, JobState.QUEUED)
        central.skip_delay(job_id)
        assert caller.await_offer().job_id == job_id, "it must be offered again"
        central.expire_offer(job_id)
    in_state(central, job_id, JobState.FAILED)


def check_a_declined_job_is_queued_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    done(caller.decline(offer))
    in_state(central, job_id, JobState.QUEUED)
    central.skip_delay(job_id)
    again = caller.await_offer()
    assert (again.job_id, again.epoch > offer.epoch) == (job_id, True), "the same job again, at a higher epoch"


def check_a_running_job_cannot_be_declined(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    refused(caller.decline(offer), ProblemCode.SUPERSEDED)
    in_state(central, offer.job_id, JobState.RUNNING)


def check_reporting_is_idempotent(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    for outcome, exit_code, state in (
        (Outcome.SUCCEEDED, 0, JobState.SUCCEEDED),
        (Outcome.FAILED, 1, JobState.FAILED),
        (Outcome.DIED, None, JobState.FAILED),
    ):
        offer = caller.start_job()
        done(caller.report(offer, outcome, exit_code))
        in_state(central, offer.job_id, state)
        done(caller.report(offer, outcome, exit_code))
        in_state(central, offer.job_id, state)
        refused(caller.accept(offer), ProblemCode.SUPERSEDED)
        in_state(central, offer.job_id, state)


def check_a_second_report_does_not_change_the_first(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    done(caller.report(offer, Outcome.SUCCEEDED))
    done(caller.report(offer, Outcome.DIED, None))
    in_state(central, offer.job_id, JobState.SUCCEEDED)


def check_an_offer_that_cannot_be_prepared_is_reported_without_acceptance(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    succeeded(caller.log(offer, 0, b"no such interpreter\n"), LogAppended)
    done(caller.report(offer, Outcome.UNPREPARED, None))
    in_state(central, job_id, JobState.FAILED)


def check_an_offer_that_died_before_its_acceptance_is_made_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    done(caller.report(offer, Outcome.DIED, None))
    central.expire_offer(job_id)
    in_state(central, job_id, JobState.QUEUED)
    central.skip_delay(job_id)
    again = caller.await_offer()
    assert (again.job_id, again.epoch) == (job_id, offer.epoch + 1)
    refused(caller.accept(offer), ProblemCode.SUPERSEDED)


def check_a_report_frees_the_slots(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central, slots=1)
    first = caller.start_job()
    done(caller.report(first))
    second = central.enqueue(caller.queue)
    assert caller.await_offer().job_id == second, "the only slot is free again"


def check_nobody_else_can_touch_a_workers_job(central: CentralUnderTest) -> None:
    queue = unique("queue")
    owner, thief = Caller.at_work(central, [queue]), Caller.at_work(central, [queue])
    central.enqueue(queue)
    offered = owner.await_offer()
    _is_not_found_everywhere(thief, offered)
    in_state(central, offered.job_id, JobState.OFFERED)
    done(owner.accept(offered))
    _is_not_found_everywhere(thief, offered)
    in_state(central, offered.job_id, JobState.RUNNING)
    assert central.log_bytes(offered.job_id) == b"", "nobody else writes into a job's log"
    done(owner.report(offered))
    _is_not_found_everywhere(thief, offered)
    in_state(central, offered.job_id, JobState.SUCCEEDED)


def check_a_queued_job_is_nobodys(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    for epoch in (0, 1):
        refused(caller.call("POST", f"jobs/{job_id}/accept", epoch=epoch), ProblemCode.NOT_FOUND, ProblemCode.SUPERSEDED)
    in_state(central, job_id, JobState.QUEUED)


def check_an_unknown_job_is_not_found(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    for job_id in (str(uuid.uuid4()), "no-uuid", "%2e%2e%2fetc"):
        refused(caller.call("POST", f"jobs/{job_id}/accept", epoch=1), ProblemCode.NOT_FOUND)


def _is_not_found_everywhere(thief: Caller, offer: Offer) -> None:
    for response in _all_job_calls(thief, offer):
        refused(response, ProblemCode.NOT_FOUND)


def _all_job_calls(caller: Caller, offer: Offer) -> Iterator[Response]:
    """Try everything that can be done to a job, one after the other."""
    yield caller.accept(offer)
    yield caller.decline(offer)
    yield caller.report(offer)
    yield caller.log(offer, 0, b"not this caller's to write")
    yield caller.run_task(offer)
    yield caller.execution(offer, "GET", "variables/any")


# Logs


def check_log_chunks_are_appended_in_order(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    text = b""
    for chunk in (b"one\n", b"", b"two\n", "drei \N{SNOWMAN}\n".encode()):
        text += chunk
        size = succeeded(caller.log(offer, len(text) - len(chunk), chunk), LogAppended).size
        assert size == len(text), f"central holds {len(text)} bytes and says {size}"
    assert central.log_bytes(offer.job_id) == text, "the log must arrive byte for byte"


def check_a_repeated_log_chunk_is_ignored(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    succeeded(caller.log(offer, 0, b"one\n"), LogAppended)
    succeeded(caller.log(offer, 4, b"two\n"), LogAppended)
    for offset, chunk in ((0, b"one\n"), (4, b"two\n"), (0, b"one\ntwo\n")):
        assert succeeded(caller.log(offer, offset, chunk), LogAppended).size == 8, "a repeat is answered with the same size"
    assert central.log_bytes(offer.job_id) == b"one\ntwo\n", "a repeat must not be written twice"


def check_a_gap_or_an_overlap_in_the_log_is_refused_with_centrals_size(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    succeeded(caller.log(offer, 0, b"one\n"), LogAppended)
    for offset, chunk in ((5, b"gap\n"), (1_000_000, b"gap\n"), (2, b"overlap\n")):
        problem = refused(caller.log(offer, offset, chunk), ProblemCode.LOG_OFFSET)
        assert problem.size == 4, f"central holds 4 bytes and says {problem.size}"
        assert problem.decision is Decision.REWIND, "the worker goes on from central's size"
    assert central.log_bytes(offer.job_id) == b"one\n", "nothing may be written at a wrong offset"


def check_a_log_offset_that_is_no_offset_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    for offset in (-1, "begin", ""):
        refused(caller.log(offer, offset, b"text"), ProblemCode.INVALID)
    refused(caller.call("POST", f"jobs/{offer.job_id}/log", body=b"text", epoch=offer.epoch), ProblemCode.INVALID)


def check_a_gzipped_log_chunk_counts_unpacked(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    first, second = b"the same line again\n" * 5000, b"and another\n"
    assert succeeded(caller.log(offer, 0, gzip.compress(first), gzipped=True), LogAppended).size == len(first)
    size = succeeded(caller.log(offer, len(first), gzip.compress(second), gzipped=True), LogAppended).size
    assert size == len(first) + len(second), "offsets count unpacked bytes"
    assert central.log_bytes(offer.job_id) == first + second, "the log must be stored unpacked"


def check_garbage_in_place_of_gzip_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    whole = gzip.compress(b"a line that is cut on its way\n" * 100)
    for body in (b"this is not gzip", whole[:-12], whole[:20] + b"\xff" * 20 + whole[40:]):
        refused(caller.log(offer, 0, body, gzipped=True), ProblemCode.INVALID)
    assert central.log_bytes(offer.job_id) == b"", "nothing of a broken chunk may be kept"


def check_a_log_chunk_that_is_too_large_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    refused(caller.log(offer, 0, b"x" * (MAX_LOG_PACKED + 1)), ProblemCode.TOO_LARGE)
    bomb = gzip.compress(b"\0" * (MAX_LOG_UNPACKED + 1))
    refused(caller.log(offer, 0, bomb, gzipped=True), ProblemCode.TOO_LARGE)
    assert central.log_bytes(offer.job_id) == b"", "nothing of a chunk that is too large may be kept"
    biggest = b"y" * MAX_LOG_PACKED
    assert succeeded(caller.log(offer, 0, biggest), LogAppended).size == MAX_LOG_PACKED, "exactly 1 MiB is allowed"


def check_a_log_may_still_grow_after_the_jobs_end(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    reported, ended = caller.start_job(), caller.start_job()
    done(caller.report(reported))
    central.end_task(ended.job_id)
    for offer in (reported, ended):
        assert succeeded(caller.log(offer, 0, b"last words\n"), LogAppended).size == 11
        assert central.log_bytes(offer.job_id) == b"last words\n", "the last lease may write after the end"


def check_every_lease_counts_its_log_from_zero(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    first = caller.await_offer()
    succeeded(caller.log(first, 0, b"first lease\n"), LogAppended)
    done(caller.decline(first))
    central.skip_delay(job_id)
    second = caller.await_offer()
    assert succeeded(caller.log(second, 0, b"second\n"), LogAppended).size == 7, "a new epoch's log starts at offset 0"
    assert central.log_bytes(job_id).endswith(b"second\n"), "the new lease's log must be kept"


# Stops


def check_a_stop_reaches_a_parked_poll_when_a_person_ends_the_task(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    ended, other = caller.start_job(), caller.start_job()
    parked = ParkedPoll(caller, jobs=[held(ended), held(other)])
    central.end_task(ended.job_id)
    stops = parked.replies_within(PROMPT_S, "a person ended the task").stops
    assert [(stop.job_id, stop.epoch) for stop in stops] == [(ended.job_id, ended.epoch)], f"one job was ended, stops: {stops}"
    assert stops[0].reason is not StopReason.SUPERSEDED, "the worker must hear that people ended it, not that it was replaced"
    in_state(central, other.job_id, JobState.RUNNING)


def check_a_stop_is_repeated_until_the_worker_says_that_it_stops(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    central.end_task(offer.job_id)
    for phase in (JobPhase.RUNNING, JobPhase.PREPARING, JobPhase.RUNNING):
        stops = caller.poll(jobs=[held(offer, phase)], wait_s=PROMPT_S).stops
        assert stops, f"the job is listed as {phase.value}, so the worker has not heard of the stop yet"
    for phase in (JobPhase.STOPPING, JobPhase.ENDED):
        stops = caller.poll(jobs=[held(offer, phase)]).stops
        assert not stops, f"the job is listed as {phase.value}; it must not be stopped again"


def check_a_stopped_job_ends_with_its_report(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    central.end_task(offer.job_id)
    assert caller.poll(jobs=[held(offer)], wait_s=PROMPT_S).stops, "the stop must arrive"
    succeeded(caller.log(offer, 0, b"stopped\n"), LogAppended)
    response = caller.report(offer, Outcome.STOPPED, -15)
    if response.status != 204:  # it may have ended with the person's word already; the worker drops the report then
        refused(response, ProblemCode.SUPERSEDED)
    in_state(central, offer.job_id, JobState.REVOKED, JobState.FAILED)


def check_an_offer_whose_task_a_person_ended_cannot_be_accepted(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    central.end_task(job_id)
    stops = caller.poll(jobs=[held(offer, JobPhase.PREPARING)], wait_s=PROMPT_S).stops
    assert [stop.job_id for stop in stops] == [job_id], "the preparing worker must hear of the end"
    refused(caller.accept(offer), ProblemCode.SUPERSEDED)
    in_state(central, job_id, JobState.REVOKED)


def check_a_task_that_a_person_ended_before_its_offer_is_never_offered(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    central.end_task(job_id)
    _wait_for_state(central, job_id, JobState.REVOKED)
    assert not caller.poll(free_slots=1).offers, "an ended task must not start"


def check_a_lost_job_is_stopped_its_log_taken_and_its_report_refused(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    succeeded(caller.log(offer, 0, b"before\n"), LogAppended)
    central.lose_job(offer.job_id)
    stops = caller.poll(jobs=[held(offer)], wait_s=PROMPT_S).stops
    assert [(stop.job_id, stop.reason) for stop in stops] == [(offer.job_id, StopReason.LOST)], (
        f"one job was lost, stops: {stops}"
    )
    for phase in (JobPhase.STOPPING, JobPhase.ENDED):
        assert not caller.poll(jobs=[held(offer, phase)]).stops, "it stops already"
    refused(caller.execution(offer, "GET", "variables/any"), ProblemCode.SUPERSEDED)
    assert succeeded(caller.log(offer, 7, b"after\n"), LogAppended).size == 13, "the old try's log is still wanted"
    for _ in range(2):
        refused(caller.report(offer), ProblemCode.SUPERSEDED)
    assert central.log_bytes(offer.job_id) == b"before\nafter\n", "the old try's log must be whole"
    in_state(central, offer.job_id, JobState.LOST)


def check_a_listed_job_that_is_not_ours_comes_back_as_a_stop(central: CentralUnderTest) -> None:
    theirs = Caller.at_work(central).start_job()
    caller = Caller.at_work(central)
    unknown = HeldJob(job_id=str(uuid.uuid4()), epoch=1, phase=JobPhase.RUNNING)
    stops: list[Stop] = ParkedPoll(caller, jobs=[held(theirs), unknown]).replies_within(PROMPT_S, "it lists foreign jobs").stops
    assert {stop.job_id for stop in stops} == {theirs.job_id, unknown.job_id}, f"both are not this worker's, stops: {stops}"
    assert all(stop.reason is StopReason.SUPERSEDED for stop in stops), f"the reason is superseded: {stops}"
    in_state(central, theirs.job_id, JobState.RUNNING)


# Intents


def check_an_intent_reaches_a_parked_poll_with_a_higher_revision(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    assert caller.session is not None
    known = caller.session.intent
    assert known.mode is IntentMode.SERVE, f"a new worker serves, this one is told to {known.mode.value}"
    parked = ParkedPoll(caller)
    central.set_intent(caller.name, IntentMode.DRAIN)
    intent = parked.replies_within(PROMPT_S, "people changed the intent").intent
    assert intent is not None, "the poll ended without the intent"
    assert (intent.mode, intent.revision > known.revision) == (IntentMode.DRAIN, True), f"a newer intent to drain, got {intent}"


def check_an_intent_is_told_until_the_worker_knows_it(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    central.set_intent(caller.name, IntentMode.PAUSE)
    told = [caller.poll(wait_s=PROMPT_S).intent for _ in range(2)]
    assert told[0] is not None and told[0] == told[1], f"a poll with an older revision is told again, got {told}"
    assert caller.poll(revision=told[0].revision).intent is None, "a poll that knows the intent is not told again"
    assert caller.open_session().intent == told[0], "a new session starts with the same intent"


def check_only_a_serving_worker_gets_offers(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(unique("queue"))  # its own queue gets a job only once it is paused
    for mode in (IntentMode.PAUSE, IntentMode.DRAIN, IntentMode.LEAVE):
        central.set_intent(caller.name, mode)
        revision = _revision_told(caller, mode)
        if mode is IntentMode.PAUSE:
            job_id = central.enqueue(caller.queue)
        assert not caller.poll(free_slots=5, revision=revision).offers, f"a worker told to {mode.value} gets no offers"
    central.set_intent(caller.name, IntentMode.SERVE)
    revision = _revision_told(caller, IntentMode.SERVE)
    reply = caller.poll(free_slots=5, revision=revision, wait_s=PROMPT_S)
    assert [offer.job_id for offer in reply.offers] == [job_id], "serving again, it gets what was queued meanwhile"


def _revision_told(caller: Caller, mode: IntentMode, *, slots: int | None = None) -> int:
    """Poll until the intent is *mode* and *slots* (central's processes may take a moment to hear of it); return its revision."""
    deadline = time.monotonic() + PROMPT_S
    while time.monotonic() < deadline:
        intent = caller.poll(wait_s=PROMPT_S, revision=0).intent
        assert intent is not None, "a poll that knows revision 0 must be told the intent"
        if (intent.mode, intent.slots) == (mode, slots):
            return intent.revision
        time.sleep(QUIET_S / 4)
    raise AssertionError(f"the worker was not told to {mode.value} with slots {slots} within {PROMPT_S} s")


# The Execution API behind the gateway


def check_the_tasks_run_call_accepts_the_offer(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    for _ in range(2):  # a lost reply: the same call again gets the same answer
        response = caller.run_task(offer)
        assert response.status == 200, f"expected 200 with the run context, got {_shown(response)}"
        assert "dag_run" in json.loads(response.body), f"this is no run context: {response.body[:80]!r}"
        in_state(central, job_id, JobState.RUNNING)
    done(caller.accept(offer))


def check_an_error_of_the_execution_api_is_passed_on_as_it_is(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    central.enqueue(caller.queue)
    offer = caller.await_offer()
    assert caller.run_task(offer).status == 200, "the task must start"
    response = caller.run_task(offer, pid=4712)
    assert response.status == 409, f"the Execution API refuses to run a task twice, got {_shown(response)}"
    assert PROBLEM_HEADER not in response.headers, "the Execution API's own 409 must not look like one of central's"


def check_the_tasks_own_end_is_no_stop(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    assert caller.run_task(offer).status == 200, "the task must start"
    response = caller.end_task(offer)
    assert response.status in (200, 204), f"the task may end itself, got {_shown(response)}"
    stops = caller.poll(jobs=[held(offer)], wait_s=1.5).stops  # longer than the second between two looks for ended tasks
    assert not stops, "what the task said of itself through the gateway is not a person's word"
    done(caller.report(offer))
    in_state(central, job_id, JobState.SUCCEEDED)


def check_a_start_whose_reply_was_lost_may_be_said_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    for _ in range(3):
        response = caller.run_task(offer)
        assert response.status == 200, f"the same process may say again that it runs, got {_shown(response)}"
    in_state(central, job_id, JobState.RUNNING)


def check_an_end_whose_reply_was_lost_may_be_said_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    assert caller.run_task(offer).status == 200, "the task must start"
    for _ in range(3):
        response = caller.end_task(offer)
        assert response.status in (200, 204), f"the task may say its end again, got {_shown(response)}"
    stops = caller.poll(jobs=[held(offer)], wait_s=1.5).stops
    assert not stops, "a repeated end is as much the task's own word as the first"
    done(caller.report(offer))
    in_state(central, job_id, JobState.SUCCEEDED)


def check_an_end_said_again_to_a_task_that_has_moved_on_changes_nothing(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    assert caller.run_task(offer).status == 200, "the task must start"
    assert caller.end_task(offer, state="deferred").status in (200, 204), "the task may go away"
    central.move_task_on(job_id)
    response = caller.end_task(offer, state="deferred")
    assert response.status in (200, 204), f"what was said and done is not refused when it is said again, got {_shown(response)}"
    stops = caller.poll(jobs=[held(offer)], wait_s=1.5).stops
    assert not stops, "the first end was the task's own word; its repeat doesn't take that back"
    done(caller.report(offer))
    in_state(central, job_id, JobState.SUCCEEDED)


def check_an_end_that_was_refused_is_not_taken_for_the_tasks_word(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    central.enqueue(caller.queue)
    offer = caller.await_offer()
    response = caller.end_task(offer)  # it never ran
    assert response.status >= 400, f"a task that does not run can't end, got {_shown(response)}"
    response = caller.end_task(offer)
    assert response.status >= 400, f"said again it is still refused, got {_shown(response)}"


def check_a_task_that_was_taken_back_writes_nothing_more(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    assert caller.run_task(offer).status == 200, "the task must start"
    central.end_task(job_id)
    stops = caller.poll(jobs=[held(offer)], wait_s=PROMPT_S).stops
    assert stops, "a person ended the task: its worker must hear of it"
    deadline = time.monotonic() + PROMPT_S
    response = caller.execution(offer, "POST", "xcoms/d/r/t/k", 1)
    while PROBLEM_HEADER not in response.headers and time.monotonic() < deadline:
        time.sleep(0.1)  # what the database said a moment ago may still count
        response = caller.execution(offer, "POST", "xcoms/d/r/t/k", 1)
    refused(response, ProblemCode.INVALID, ProblemCode.SUPERSEDED)


def check_the_gateway_is_closed_once_the_lease_is_over(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    done(caller.report(offer))
    refused(caller.execution(offer, "GET", "variables/any"), ProblemCode.SUPERSEDED)
    refused(caller.run_task(offer), ProblemCode.SUPERSEDED)
    in_state(central, offer.job_id, JobState.SUCCEEDED)


# Repeats and late calls


def check_a_call_under_a_lease_that_is_over_changes_nothing(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    old = caller.await_offer()
    done(caller.decline(old))
    central.skip_delay(job_id)
    new = caller.await_offer()
    assert new.epoch > old.epoch, f"an epoch rises with each offer: {old.epoch}, then {new.epoch}"
    for response in (
        caller.accept(old),
        caller.decline(old),
        caller.report(old, Outcome.FAILED, 1),
        caller.log(old, 0, b"late\n"),
        caller.run_task(old),
    ):
        refused(response, ProblemCode.SUPERSEDED)
    in_state(central, job_id, JobState.OFFERED)
    assert central.job_epoch(job_id) == new.epoch, "the newer lease stands"
    assert central.log_bytes(job_id) == b"", "an older lease writes no log any more"
    done(caller.accept(new))


def check_a_session_asked_for_again_takes_nothing_away(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    first = caller.open_session(jobs=[held(offer)])
    again = caller.open_session(jobs=[held(offer)])  # the first one's reply may have been lost
    assert not first.stops and not again.stops, f"the job is this worker's, stops: {first.stops} {again.stops}"
    in_state(central, offer.job_id, JobState.RUNNING)
    assert central.job_epoch(offer.job_id) == offer.epoch, "a new session is no new lease"
    done(caller.report(offer))


def check_a_declined_offer_declined_again_is_not_delayed_twice(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    done(caller.decline(offer))
    refused(caller.decline(offer), ProblemCode.SUPERSEDED)
    in_state(central, job_id, JobState.QUEUED)
    central.skip_delay(job_id)
    assert caller.await_offer().job_id == job_id


def check_an_end_stays_what_it_was_reported_to_be(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    done(caller.report(offer, Outcome.SUCCEEDED, 0))
    done(caller.report(offer, Outcome.FAILED, 1))  # the same job and epoch again: acknowledged, and without effect
    in_state(central, offer.job_id, JobState.SUCCEEDED)
    assert not caller.poll(free_slots=8).offers, "what has ended is not offered"


# Credentials


def check_a_session_tells_the_life_of_its_credential(central: CentralUnderTest) -> None:
    session = Caller.enrol(central).open_session()
    assert session.credential_life_s > 0, "a credential ends some day"
    assert 0 <= session.credential_age_s < 60, (
        f"the credential was made just now, its age is said to be {session.credential_age_s}"
    )


def check_the_old_credential_is_good_until_the_new_one_was_used(central: CentralUnderTest) -> None:
    old = Caller.at_work(central)
    new = old.next_credential()
    assert new.credential != old.credential, "a new credential is another one"
    succeeded(old.ask_poll(), PollReply)
    succeeded(new.call("GET", "ping"), Pong)
    succeeded(new.ask_poll(), PollReply)


def check_a_lost_next_credential_may_be_asked_for_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    lost, found = caller.next_credential(), caller.next_credential()
    assert lost.credential != found.credential, "each answer has a credential of its own"
    succeeded(found.call("GET", "ping"), Pong)
    refused(lost.call("GET", "ping"), ProblemCode.UNAUTHORIZED)
    succeeded(found.ask_poll(), PollReply)


def check_what_left_before_the_credential_was_replaced_is_taken(central: CentralUnderTest) -> None:
    old = Caller.at_work(central)
    new = old.next_credential()
    succeeded(new.call("GET", "ping"), Pong)
    succeeded(old.call("GET", "ping"), Pong)
    refused(old.call("POST", "credential"), ProblemCode.BUSY)
    assert not central.is_flagged(old.name), "a request that was late is no alarm"


def check_who_uses_a_replaced_credential_is_refused_and_flagged(central: CentralUnderTest) -> None:
    old = Caller.at_work(central)
    new = old.next_credential()
    succeeded(new.call("GET", "ping"), Pong)
    central.pass_handover(old.name)
    for response in (old.call("GET", "ping"), old.ask_poll(), old.ask_session(), old.call("POST", "credential")):
        refused(response, ProblemCode.UNAUTHORIZED)
    assert central.is_flagged(old.name), "somebody has a copy of a credential, and nobody is told"
    succeeded(new.ask_poll(), PollReply)


def check_an_expired_credential_is_refused_as_such(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    central.expire_credential(caller.name)
    for response in (caller.call("GET", "ping"), caller.ask_poll(), caller.ask_session(), caller.call("POST", "credential")):
        refused(response, ProblemCode.EXPIRED)


def check_a_wish_for_a_new_credential_is_told_until_it_is_used(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    parked = ParkedPoll(caller)
    central.ask_to_rotate(caller.name)
    intent = parked.replies_within(PROMPT_S, "its credential is to be replaced").intent
    assert intent is not None and intent.rotate, f"the reply should ask for a new credential, it says {intent}"
    assert caller.open_session().intent.rotate, "a session that is opened meanwhile must be told too"
    new = caller.next_credential()
    assert not new.open_session().intent.rotate, "the wish has come true"


# The end of a worker


def check_a_suspended_worker_is_out_until_that_is_lifted_and_keeps_its_jobs(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    parked = ParkedPoll(caller, jobs=[held(offer)], free_slots=1)
    central.suspend_worker(caller.name)
    refused(parked.ends_within(REVOKED_S, "its worker was suspended"), ProblemCode.SUSPENDED)
    for response in (
        caller.ask_poll(),
        caller.ask_session(),
        caller.call("GET", "ping"),
        caller.call("POST", "credential"),
        caller.log(offer, 0, b"late"),
        caller.execution(offer, "GET", "variables/any"),
        caller.report(offer),
    ):
        refused(response, ProblemCode.SUSPENDED)
    in_state(central, offer.job_id, JobState.RUNNING)
    central.unsuspend_worker(caller.name)
    _until_heard(caller)
    caller.open_session(jobs=[held(offer)])
    done(caller.report(offer))
    in_state(central, offer.job_id, JobState.SUCCEEDED)


def check_a_revoked_worker_is_out_at_once(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    parked = ParkedPoll(caller, jobs=[held(offer)], free_slots=1)
    central.revoke_worker(caller.name)
    out = (ProblemCode.REVOKED, ProblemCode.UNAUTHORIZED)
    refused(parked.ends_within(REVOKED_S, "its worker was revoked"), *out)
    for response in (
        caller.ask_poll(),
        caller.ask_session(),
        caller.call("GET", "ping"),
        caller.log(offer, 0, b"late"),
        caller.execution(offer, "GET", "variables/any"),
        caller.report(offer),
    ):
        refused(response, *out)
    assert central.log_bytes(offer.job_id) == b"", "a revoked worker writes nothing any more"


def check_a_worker_can_only_leave_with_empty_hands(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    refused(caller.call("POST", "leave"), ProblemCode.SUPERSEDED)
    in_state(central, offer.job_id, JobState.RUNNING)
    succeeded(caller.call("GET", "ping"), Pong)
    done(caller.report(offer))
    done(caller.call("POST", "leave"))
    for response in (caller.call("GET", "ping"), caller.ask_poll(), caller.ask_session()):
        refused(response, ProblemCode.REVOKED, ProblemCode.UNAUTHORIZED)


def _until_heard(caller: Caller) -> None:
    """Wait until what people decided has come to whom the caller speaks to."""
    deadline = time.monotonic() + PROMPT_S
    while caller.call("GET", "ping").status != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    succeeded(caller.call("GET", "ping"), Pong)


def _wait_for_state(central: CentralUnderTest, job_id: str, state: JobState) -> None:
    deadline = time.monotonic() + PROMPT_S
    while central.job_state(job_id) != state.value and time.monotonic() < deadline:
        time.sleep(0.05)
    in_state(central, job_id, state)


ALL: list[Check] = [check for name, check in list(globals().items()) if name.startswith("check_")]
"""Every check, in the order of docs/protocol.md."""
