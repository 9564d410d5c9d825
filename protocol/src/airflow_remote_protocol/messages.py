"""Every message of `/remote/v1` as a frozen type. JSON on the wire; decoded here, at the edge, and trusted inside.

Unknown fields are ignored. Unknown enum values are refused by the decoder. Times are seconds (float) unless named otherwise;
ids are the strings of UUIDs. Routes: docs/protocol.md.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
"""A worker's name: what people type, and safe in a path, a URL and a metric. (`\\Z`: `$` lets a line end pass.)"""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[!-~]+\Z")]
"""Printable ASCII: it goes into queries and logs, and some databases refuse NUL even in a comparison."""
QueueName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
LONGEST_SHORT_TEXT = 2000
"""Characters."""
ShortText = Annotated[str, msgspec.Meta(max_length=LONGEST_SHORT_TEXT)]
Slots = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
MAX_JOBS_LISTED = 10_000
MAX_CHUNKS = 200
"""Of one `logs` request: each costs central a file that is opened."""
XComKey = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
"""Airflow's column has 512 characters."""


class Message(msgspec.Struct, frozen=True):
    """Base of all messages: immutable, tolerant of unknown fields."""


class Facts(Message, frozen=True):
    """What a worker says of its machine. Shown to people, believed by nobody."""

    hostname: Annotated[str, msgspec.Meta(max_length=255)] = ""
    os: Annotated[str, msgspec.Meta(max_length=100)] = ""
    arch: Annotated[str, msgspec.Meta(max_length=50)] = ""
    python: Annotated[str, msgspec.Meta(max_length=50)] = ""
    version: Annotated[str, msgspec.Meta(max_length=50)] = ""


class Enrolment(Message, frozen=True):
    """`POST enrol`, with an enrolment token or an Airflow user's own token as bearer: one more worker wants to join."""

    name: Name
    facts: Facts = Facts()
    queues: Annotated[list[QueueName], msgspec.Meta(max_length=100)] = []
    """What it is to serve, as a user says who may manage workers. With an enrolment token: what that says, whatever is here."""


class Enrolled(Message, frozen=True):
    """Answer to `enrol`. The only time the credential is ever shown."""

    worker_id: Id
    name: Name
    credential: str
    queues: list[str]


class Credential(Message, frozen=True):
    """Answer to `POST credential`: what replaces the credential that asked, once it is used. The only time it is ever shown."""

    credential: str
    life_s: float
    """How long it is good for."""


class JobPhase(str, Enum):
    """What the worker is doing about a job that it holds."""

    PREPARING = "preparing"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    """Over here; its log or report is still on the way."""


class HeldJob(Message, frozen=True):
    """One job that a worker holds, in `session` and `poll`. Listing it renews its offer and its lease."""

    job_id: Id
    epoch: int
    phase: JobPhase


class SessionRequest(Message, frozen=True):
    """`POST session`: the daemon has started (or central forgot its session) and speaks from now on."""

    instance_id: Id
    """Stays the same over restarts of one installation on one machine; differs on a copy."""
    boot_id: Id
    """New with every start of the daemon."""
    protocol: str
    capabilities: list[str]
    slots: Slots
    facts: Facts
    jobs: Annotated[list[HeldJob], msgspec.Meta(max_length=MAX_JOBS_LISTED)] = []
    time: float = 0.0
    """The worker's wall clock, seconds since the epoch, for people to see how far it is off; 0: not told."""
    triggers: Slots = 0
    """How many triggers the worker hosts at most (capability `trigger`). They take no slots."""


class IntentMode(str, Enum):
    """What people want of a worker."""

    SERVE = "serve"
    PAUSE = "pause"
    DRAIN = "drain"
    LEAVE = "leave"


class Intent(Message, frozen=True):
    """People's durable wish for one worker. *revision* rises with each change of any part of it."""

    mode: IntentMode
    revision: int
    slots: Slots | None = None
    """The most slots that this worker may fill; None: what it offers itself."""
    reason: str = ""
    rotate: bool = False
    """The credential is to be replaced now. Falls back by itself, without a new revision, once it was."""
    restart: bool = False
    """The daemon is to start anew (capability `restart`). Falls back by itself once another start has opened a session."""


class StopReason(str, Enum):
    """Why a job must end before its time."""

    ENDED = "ended"
    """A person or the scheduler set the task's state."""
    CLEARED = "cleared"
    """The task was cleared; it will run again."""
    GONE = "gone"
    """The task instance or its Dag run was deleted, or another attempt took its place."""
    REVOKED = "revoked"
    """The executor took the job back."""
    SUPERSEDED = "superseded"
    """Another lease (a higher epoch) exists, or central knows no such job of this worker."""
    RESUMED = "resumed"
    """Of a trigger: its task goes on without it, because the wait has timed out. The trigger's `on_kill` must not run."""
    LOST = "lost"
    """Central has given the job up, its worker was silent for too long. Its log is still taken, as the old try's; its report is
    refused as superseded, and noted."""


class Stop(Message, frozen=True):
    """End this job: SIGTERM to its process group, `on_kill` runs, escalation after the grace."""

    job_id: Id
    epoch: int
    reason: StopReason
    detail: str = ""


class TaskSettings(Message, frozen=True):
    """Central's Airflow settings that change how a task behaves or what its log masks: :mod:`.task_settings`."""

    revision: Annotated[str, msgspec.Meta(max_length=64)]
    """Differs whenever a value does."""
    values: dict[str, str]
    """By `section.option`. Names that the worker doesn't know are ignored."""


class Session(Message, frozen=True):
    """Answer to `session`."""

    session_id: Id
    worker_id: Id
    name: Name
    protocol: str
    capabilities: list[str]
    poll_s: float
    """How long the worker may ask a poll to stay open."""
    retry_s: float
    """The least wait before the next attempt after a failed one; the worker adds jitter and backs off."""
    intent: Intent
    stops: list[Stop] = []
    time: float = 0.0
    """Central's wall clock, seconds since the epoch; 0: not told."""
    credential_life_s: float = 0.0
    """How long the credential that asked is good for in all; 0: it does not end."""
    credential_age_s: float = 0.0
    """How much of that is over."""
    body_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many bytes the body of an Execution API call may have, in either direction; 0: not told."""
    task_settings: TaskSettings | None = None
    """None: central sends none, the worker keeps those that it has."""


class JobKind(str, Enum):
    """What kind of workload a job carries.

    Any worker takes tasks; another kind is offered only to workers whose session named the capability of the same value.
    """

    TASK = "task"
    """One try of a task: :class:`TaskWorkload`."""
    CALLBACK = "callback"
    """A callback of a Dag run (deadline alerts): :class:`CallbackWorkload`."""
    CONNECTION_TEST = "connection-test"
    """A connection, tried from where the worker stands: :class:`ConnectionTestWorkload`."""
    TRIGGER = "trigger"
    """What a deferred task waits for: :class:`TriggerWorkload`. Takes no slots. Accepted by `accept`, ended by `event`."""


class Offer(Message, frozen=True):
    """The right to run one job, until *deadline_s* from now unless accepted; listing it as preparing renews that."""

    job_id: Id
    epoch: int
    kind: JobKind
    queue: str
    slots: int
    deadline_s: float
    stop_after_s: float
    """How long the worker lets the job run on without any contact with central."""
    workload: msgspec.Raw
    """JSON of the type that :class:`JobKind` names."""


CodeHash = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")]
"""MD5 of a Dag file's text in UTF-8, its line ends being LF, as Airflow keeps it (`dag_code`); empty: unknown. It tells versions
apart, and protects nothing."""


class Bundle(Message, frozen=True):
    """Dag code at one version."""

    name: str
    version: str | None = None


class TaskWorkload(Message, frozen=True):
    """What the Task SDK's supervisor needs to run one task try. No token, no path on central's disk."""

    ti: dict[str, Any]
    """`airflow.sdk.api.datamodels.TaskInstance` as JSON, passed on as it is."""
    dag_rel_path: str
    bundle: Bundle
    code_hash: CodeHash = ""
    """Of the Dag file as central parsed it."""


class CallbackWorkload(Message, frozen=True):
    """What the Task SDK's callback supervisor needs."""

    callback_id: Id
    path: str
    """Import path of a function or class."""
    kwargs: dict[str, Any]
    dag_rel_path: str
    bundle: Bundle
    kwargs_encoding: str | None = None
    """How Airflow has encoded *kwargs* (`serde` since Airflow 3.4); None: they are passed as they are."""


class ConnectionTestWorkload(Message, frozen=True):
    """What the Task SDK's connection test needs. The connection itself is fetched through the gateway, once."""

    connection_test_id: Id
    connection_id: str
    timeout_s: int


class TriggerWorkload(Message, frozen=True):
    """What a trigger host needs to run one trigger of a deferred task."""

    ti: dict[str, Any]
    """The deferred task instance, as in :class:`TaskWorkload`."""
    classpath: str
    """Import path of the trigger's class, as the task's process named it."""
    kwargs: msgspec.Raw
    """JSON object: the trigger's arguments as the Task SDK encoded them. Central never decodes them."""
    dag_rel_path: str
    bundle: Bundle


class Poll(Message, frozen=True):
    """`POST poll`: asks for work, hears intent, renews every lease listed. Parked by central for up to *wait_s*."""

    free_slots: Slots
    intent_revision: int
    wait_s: float
    jobs: Annotated[list[HeldJob], msgspec.Meta(max_length=MAX_JOBS_LISTED)] = []
    free_triggers: Slots = 0
    """How many more triggers the worker would host now."""
    task_settings_revision: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """Of the task settings that the worker has; empty: it has none. None: it does not know what they are."""


class PollReply(Message, frozen=True):
    """Answer to `poll`. Empty when nothing happened within the wait."""

    poll_s: float
    """How long to ask for next time."""
    offers: list[Offer] = []
    stops: list[Stop] = []
    intent: Intent | None = None
    """Only when its revision is newer than the poll's."""
    pause_s: float = 0.0
    """How long to wait before the next poll (load shedding)."""
    task_settings: TaskSettings | None = None
    """Only when their revision differs from the poll's. Does not end a poll early; they hold for the offers beside them."""


class Decline(Message, frozen=True):
    """`POST jobs/{id}/decline`: not now. The job is offered again, not charged to the task's tries.

    A trigger can be declined after it was accepted as well: its worker drains, and another one goes on.
    """

    reason: ShortText


class Outcome(str, Enum):
    """How a job ended at the worker."""

    SUCCEEDED = "succeeded"
    """The task process exited with 0."""
    FAILED = "failed"
    """It ran and exited otherwise (its own terminal state went through the gateway)."""
    STOPPED = "stopped"
    """Ended by a stop of central's."""
    UNPREPARED = "unprepared"
    """It never started: no such bundle, no such interpreter. The reason is in the task's log."""
    DIED = "died"
    """Its shim vanished without a result (killed, reboot)."""


class Report(Message, frozen=True):
    """`POST jobs/{id}/report`: the job is over here and its whole log has been acknowledged."""

    outcome: Outcome
    exit_code: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] | None = None
    reason: ShortText = ""
    log_size: Annotated[int, msgspec.Meta(ge=0, lt=2**62)] = 0
    log_sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    site_code: CodeHash = ""
    """Of the worker's Dag file, where it is not the one that central parsed."""


class EventKind(str, Enum):
    """How a trigger ended."""

    FIRED = "fired"
    """It yielded an event: the task goes on with `payload`."""
    FAILED = "failed"
    """It raised, ended without an event or could not be loaded: the task goes on with a failure."""
    ENDED = "ended"
    """It yielded an event that ends the task without resuming it (`TaskSuccessEvent` and its like)."""


class EndState(str, Enum):
    """The state in which a trigger ends its task."""

    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


MAX_TRACEBACK_PARTS = 200
MAX_END_XCOMS = 100


class TriggerEvent(Message, frozen=True):
    """`POST jobs/{id}/event`: the trigger has ended; resumes its task and ends the job. The same event again changes nothing."""

    kind: EventKind
    payload: msgspec.Raw = msgspec.Raw(b"null")
    """With `fired`: the event's payload as JSON, as the Task SDK encoded it. Central never decodes it."""
    traceback: Annotated[list[ShortText], msgspec.Meta(max_length=MAX_TRACEBACK_PARTS)] = []
    """With `failed`: what to write into the task's log."""
    state: EndState | None = None
    """With `ended`."""
    xcoms: Annotated[dict[XComKey, msgspec.Raw], msgspec.Meta(max_length=MAX_END_XCOMS)] = {}
    """With `ended` and `success`: the task's XComs as JSON, as the Task SDK encoded them."""


class LogChunk(Message, frozen=True):
    """One piece of one job's log."""

    job_id: Id
    epoch: int
    offset: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    """In bytes, from the beginning of this lease's log."""
    text: Annotated[str, msgspec.Meta(max_length=1024 * 1024)]
    """Whole lines."""


class LogChunks(Message, frozen=True):
    """`POST logs`: pieces of the logs of many triggers in one request. A body may be gzip-compressed."""

    chunks: Annotated[list[LogChunk], msgspec.Meta(max_length=MAX_CHUNKS)]


class ChunkResult(Message, frozen=True):
    """What became of one :class:`LogChunk`."""

    job_id: Id
    epoch: int
    size: int = 0
    """How many bytes of this lease's log central holds now; go on from there."""
    refused: str = ""
    """Why central takes no more of this log, now or later; empty if it does."""


class ChunkResults(Message, frozen=True):
    """Answer to `logs`, in the order of the chunks."""

    results: list[ChunkResult]


class LogAppended(Message, frozen=True):
    """Answer to `jobs/{id}/log` and `log`: how many bytes of this job's log, or of this stretch, central holds now."""

    size: int


Processors = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
"""How many were busy, on average since the last time."""
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class JobUsage(Message, frozen=True):
    """What a job's processes use."""

    cpus: Processors
    memory: Bytes
    """Resident; of what they share with others, their part."""


class MachineUsage(Message, frozen=True):
    """What a worker's machine uses, and has."""

    cpus: Processors
    cpu_count: Processors
    memory: Bytes
    memory_total: Bytes
    disk_free: Bytes
    """Where the worker keeps its state."""


class Usage(Message, frozen=True):
    """`POST usage`. Shown to people, believed by nobody."""

    machine: MachineUsage
    jobs: Annotated[dict[Id, JobUsage], msgspec.Meta(max_length=MAX_JOBS_LISTED)] = {}
    """By their ids."""


class UsageNoted(Message, frozen=True):
    """Answer to `usage`."""

    every_s: float
    """When to tell it again: the more workers do, the later."""


Version = Annotated[str, msgspec.Meta(max_length=50)]


class Runtime(Message, frozen=True):
    """`POST runtime`: what the worker's tasks run in, and whether it can host them. Sent when it is known and when it changes.

    Central offers no job to a worker with *trouble*, or whose versions don't fit its own.
    """

    airflow: Version = ""
    """Version of Airflow; empty: unknown, or not installed (a runtime may have the Task SDK alone)."""
    task_sdk: Version = ""
    """Version of the Task SDK; empty: unknown."""
    python: Version = ""
    trouble: ShortText = ""
    """Why it can't host tasks, and what to do; empty: it hosted the worker's canary."""


class RuntimeNoted(Message, frozen=True):
    """Answer to `runtime`."""

    trouble: str = ""
    """Why central offers this worker no jobs; empty: its runtime fits."""


class Pong(Message, frozen=True):
    """Answer to `GET ping`: proof that the credential works, and central's clock."""

    name: Name
    time: float
    """Central's wall clock, seconds since the epoch."""
