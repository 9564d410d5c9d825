"""Every message of `/remote/v1` as a frozen type. JSON on the wire.

The decoder ignores unknown fields and refuses unknown enum values. Decoded values need no further checks. Times are seconds
(float) unless named otherwise; ids are the strings of UUIDs. Routes: docs/protocol.md.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
"""A worker's name: easy to type, and safe in a path, a URL and a metric. (`\\Z`, because `$` accepts a line end.)"""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[!-~]+\Z")]
"""Printable ASCII, because it is used in queries and logs, and some databases refuse NUL even in a comparison."""
QueueName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
MAX_SHORT_TEXT = 2000
"""Characters."""
ShortText = Annotated[str, msgspec.Meta(max_length=MAX_SHORT_TEXT)]
Slots = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
MAX_JOB_LIMIT = 1_000_000
JobLimit = Annotated[int, msgspec.Meta(ge=1, le=MAX_JOB_LIMIT)]
MAX_JOBS_LISTED = 10_000
MAX_CHUNKS = 200
"""Chunks in one `logs` request: central opens a file for each."""
XComKey = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
"""Airflow's column holds 512 characters."""


class Message(msgspec.Struct, frozen=True):
    """Base of all messages: immutable; unknown fields are ignored."""


class Facts(Message, frozen=True):
    """A worker's description of its machine. Shown to users; nothing relies on it."""

    hostname: Annotated[str, msgspec.Meta(max_length=255)] = ""
    os: Annotated[str, msgspec.Meta(max_length=100)] = ""
    arch: Annotated[str, msgspec.Meta(max_length=50)] = ""
    python: Annotated[str, msgspec.Meta(max_length=50)] = ""
    version: Annotated[str, msgspec.Meta(max_length=50)] = ""
    platform: Annotated[str, msgspec.Meta(max_length=100)] = ""
    """Of the interpreter that runtimes from central would use (:mod:`.platforms`); empty: it takes none."""
    release_platform: Annotated[str, msgspec.Meta(max_length=100)] = ""
    """Of the interpreter that runs the worker itself; empty: it takes no releases from central."""


class Enrolment(Message, frozen=True):
    """`POST enrol`, with an enrolment token or an Airflow user's own token as bearer: request to register a new worker."""

    name: Name
    facts: Facts = Facts()
    queues: Annotated[list[QueueName], msgspec.Meta(max_length=100)] = []
    """The queues to serve. Only with a user's own token and the right to manage workers; an enrolment token names its own."""
    ephemeral: bool = False
    """The worker is removed when it leaves, or when it is silent for long."""


class Enrolled(Message, frozen=True):
    """Answer to `enrol`. The credential is sent only here."""

    worker_id: Id
    name: Name
    credential: str
    queues: list[str]


class Credential(Message, frozen=True):
    """Answer to `POST credential`: the next credential. It replaces the present one once it is used, and is sent only here."""

    credential: str
    life_s: float
    """How long it is valid."""


class JobPhase(str, Enum):
    """The phase of a job at the worker that holds it."""

    PREPARING = "preparing"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    """The job has ended at the worker; its log or report has not reached central yet."""


MAX_DETAIL = 100
"""Characters."""


class HeldJob(Message, frozen=True):
    """One job that a worker holds, in `session` and `poll`. Listing it renews its offer and its lease."""

    job_id: Id
    epoch: int
    phase: JobPhase
    detail: Annotated[str, msgspec.Meta(max_length=MAX_DETAIL)] = ""
    """What the worker is doing for it (`code 43 %`). Shown to users; nothing relies on it."""


class SessionRequest(Message, frozen=True):
    """`POST session`: opens a session, because the daemon has started or central no longer knows its session."""

    instance_id: Id
    """Constant over restarts of one installation on one machine; differs on a copy."""
    boot_id: Id
    """New with every start of the daemon."""
    protocol: str
    capabilities: list[str]
    slots: Slots
    facts: Facts
    jobs: Annotated[list[HeldJob], msgspec.Meta(max_length=MAX_JOBS_LISTED)] = []
    time: float = 0.0
    """The worker's wall clock, seconds since the epoch, to show its offset to users; 0: not sent."""
    triggers: Slots = 0
    """How many triggers the worker hosts at most (capability `trigger`). They use no slots."""
    ephemeral: bool = False
    """As in :class:`Enrolment`. Once it was sent, it holds for as long as the worker exists."""
    max_jobs: JobLimit | None = None
    """How many jobs the worker takes from this start on, triggers included; None: any number. An ephemeral worker's number is for
    as long as it exists, and can only become smaller."""


class IntentMode(str, Enum):
    """What a worker should do, as set by administrators."""

    SERVE = "serve"
    PAUSE = "pause"
    DRAIN = "drain"
    LEAVE = "leave"


class Intent(Message, frozen=True):
    """What administrators set for one worker; stored in central. *revision* rises with each change of any part of it."""

    mode: IntentMode
    revision: int
    slots: Slots | None = None
    """The most slots that this worker may fill; None: its own number of slots."""
    reason: str = ""
    rotate: bool = False
    """Replace the credential now. Central resets this, without a new revision, once it has been replaced."""
    restart: bool = False
    """Restart the daemon (capability `restart`). Central resets this once another start has opened a session."""


class StopReason(str, Enum):
    """Why central stops a job."""

    ENDED = "ended"
    """A user or the scheduler set the task's state."""
    CLEARED = "cleared"
    """The task was cleared; it will run again."""
    GONE = "gone"
    """The task instance or its Dag run was deleted, or another attempt took its place."""
    REVOKED = "revoked"
    """The executor revoked the job."""
    SUPERSEDED = "superseded"
    """Another lease (a higher epoch) exists, or central knows no such job of this worker."""
    RESUMED = "resumed"
    """For a trigger: its task resumes without it, because the wait has timed out. The trigger's `on_kill` must not run."""
    LOST = "lost"
    """The job counts as lost, because its worker was silent for too long. Central still accepts its log, as the log of the old
    try, but refuses its report as superseded, and records it."""


class Stop(Message, frozen=True):
    """Stop this job: send SIGTERM to its process group, let `on_kill` run, escalate after the grace period."""

    job_id: Id
    epoch: int
    reason: StopReason
    detail: str = ""


class TaskSettings(Message, frozen=True):
    """Central's Airflow settings that affect how a task behaves or which values its log masks: :mod:`.task_settings`."""

    revision: Annotated[str, msgspec.Meta(max_length=64)]
    """Differs whenever a value does."""
    values: dict[str, str]
    """By `section.option`. The worker ignores unknown names."""


Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A SHA-256 in hexadecimal: of a file's content, or of a tree's manifest."""


class TreeRef(Message, frozen=True):
    """A tree (:mod:`.trees`) and how large it is."""

    digest: Digest
    files: Annotated[int, msgspec.Meta(ge=0)]
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    """Of all its files together."""
    note: ShortText = ""
    """A line for the task's log about the choice of this tree; empty: none."""


RuntimeName = Annotated[str, msgspec.Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9._-]*\Z")]
MAX_RUNTIMES = 50


class RuntimeRef(Message, frozen=True):
    """A runtime that central sends: the packages that tasks need, for the worker's platform."""

    name: RuntimeName
    serial: Annotated[int, msgspec.Meta(ge=1)]
    """Rises with each build of that name."""
    tree: TreeRef


class Runtimes(Message, frozen=True):
    """The runtimes that a worker should have ready. Their trees may be fetched while they are listed here."""

    revision: Annotated[str, msgspec.Meta(max_length=64)]
    """Differs whenever the list does."""
    wanted: Annotated[list[RuntimeRef], msgspec.Meta(max_length=MAX_RUNTIMES)]
    kept: Annotated[list[Digest], msgspec.Meta(max_length=MAX_RUNTIMES)] = []
    """Trees of earlier runtimes that the worker keeps if it has them, for a rollback or until a wanted one is ready."""


Version = Annotated[str, msgspec.Meta(max_length=50)]


class WantedRelease(Message, frozen=True):
    """The release of the worker's own software that it should run. Its tree may be fetched while it is named here."""

    version: Version
    """Version of the package `airflow-remote-worker`."""
    serial: Annotated[int, msgspec.Meta(ge=1)]
    """Rises with each release that central rolls out, also with a rollback to an older version."""
    tree: TreeRef


class Session(Message, frozen=True):
    """Answer to `session`."""

    session_id: Id
    worker_id: Id
    name: Name
    protocol: str
    capabilities: list[str]
    poll_s: float
    """The longest `wait_s` for a poll."""
    retry_s: float
    """The shortest wait after a failed attempt; the worker adds jitter and backs off."""
    intent: Intent
    stops: list[Stop] = []
    time: float = 0.0
    """Central's wall clock, seconds since the epoch; 0: not sent."""
    credential_life_s: float = 0.0
    """Total lifetime of the credential used for this request; 0: it does not expire."""
    credential_age_s: float = 0.0
    """Its age."""
    body_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many bytes the body of an Execution API call may have, in either direction; 0: not sent."""
    task_settings: TaskSettings | None = None
    """None: central sends no settings; the worker keeps those that it has."""
    runtimes: Runtimes | None = None
    """None: without the capability `runtimes`."""
    release: WantedRelease | None = None
    """None: central has no release for this worker (capability `releases`), which keeps the one that it runs."""
    jobs_left: Annotated[int, msgspec.Meta(ge=0, le=MAX_JOB_LIMIT)] | None = None
    """How many more jobs this worker is offered, beyond those that are leased to it. None: any number, or an older central, which
    knows no such limit."""


class JobKind(str, Enum):
    """The kind of a job's workload.

    Every worker accepts tasks. Another kind is offered only to workers whose session named the capability of the same value.
    """

    TASK = "task"
    """One try of a task: :class:`TaskWorkload`."""
    CALLBACK = "callback"
    """A callback of a Dag run (deadline alerts): :class:`CallbackWorkload`."""
    CONNECTION_TEST = "connection-test"
    """A test of a connection from the worker's machine: :class:`ConnectionTestWorkload`."""
    TRIGGER = "trigger"
    """The trigger of a deferred task: :class:`TriggerWorkload`. Uses no slots. Accepted by `accept`, ended by `event`."""


class Offer(Message, frozen=True):
    """The right to run one job. It expires *deadline_s* from now unless accepted; listing the job as preparing renews it."""

    job_id: Id
    epoch: int
    kind: JobKind
    queue: str
    slots: int
    deadline_s: float
    stop_after_s: float
    """How long the worker lets the job run without any contact with central."""
    workload: msgspec.Raw
    """JSON of the type that :class:`JobKind` names."""
    tree: TreeRef | None = None
    """The code of its bundle (capability `bundles`); None: central does not publish that bundle, and the site must have it."""
    runtime: RuntimeRef | None = None
    """The runtime that it runs in (capability `runtimes`), which the worker has reported as ready; None: the site's own."""


CodeHash = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")]
"""MD5 of a Dag file's text in UTF-8 with LF line ends, as Airflow stores it (`dag_code`); empty: unknown. It distinguishes
versions, and has no security purpose."""


class Bundle(Message, frozen=True):
    """Dag code at one version."""

    name: str
    version: str | None = None


class TaskWorkload(Message, frozen=True):
    """The data that the Task SDK's supervisor needs to run one task try. No token, no path on central's disk."""

    ti: dict[str, Any]
    """`airflow.sdk.api.datamodels.TaskInstance` as JSON, passed on unchanged."""
    dag_rel_path: str
    bundle: Bundle
    code_hash: CodeHash = ""
    """Hash of the Dag file as central parsed it."""


class CallbackWorkload(Message, frozen=True):
    """The data that the Task SDK's callback supervisor needs."""

    callback_id: Id
    path: str
    """Import path of a function or class."""
    kwargs: dict[str, Any]
    dag_rel_path: str
    bundle: Bundle
    kwargs_encoding: str | None = None
    """How Airflow has encoded *kwargs* (`serde` since Airflow 3.4); None: not encoded."""


class ConnectionTestWorkload(Message, frozen=True):
    """The data that the Task SDK's connection test needs. The connection itself is fetched through the gateway, once."""

    connection_test_id: Id
    connection_id: str
    timeout_s: int


class TriggerWorkload(Message, frozen=True):
    """The data that a trigger host needs to run one trigger of a deferred task."""

    ti: dict[str, Any]
    """The deferred task instance, as in :class:`TaskWorkload`."""
    classpath: str
    """Import path of the trigger's class, as reported by the task's process."""
    kwargs: msgspec.Raw
    """JSON object: the trigger's arguments as the Task SDK encoded them. Central never decodes them."""
    dag_rel_path: str
    bundle: Bundle


class Poll(Message, frozen=True):
    """`POST poll`: requests work, receives the intent, renews every lease listed. Central holds it open for up to *wait_s*."""

    free_slots: Slots
    intent_revision: int
    wait_s: float
    jobs: Annotated[list[HeldJob], msgspec.Meta(max_length=MAX_JOBS_LISTED)] = []
    free_triggers: Slots = 0
    """How many more triggers the worker can host now."""
    task_settings_revision: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """Revision of the worker's task settings; empty: it has no settings. None: it does not support them."""
    runtimes_revision: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """Revision of the list of runtimes that the worker has; empty: it has no list. None: it takes none from central."""
    release_serial: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Serial of the release that central named last; 0: it named none. None: the worker takes none from central."""


class PollReply(Message, frozen=True):
    """Answer to `poll`. Empty when nothing happened within the wait."""

    poll_s: float
    """The `wait_s` of the next poll."""
    offers: list[Offer] = []
    stops: list[Stop] = []
    intent: Intent | None = None
    """Only when its revision is newer than the poll's."""
    pause_s: float = 0.0
    """How long to wait before the next poll (load shedding)."""
    task_settings: TaskSettings | None = None
    """Only when their revision differs from the poll's. They do not end a poll early. They apply to the offers in this reply."""
    runtimes: Runtimes | None = None
    """Only when their revision differs from the poll's, which ends a poll early."""
    release: WantedRelease | None = None
    """Only when its serial differs from the poll's, which ends a poll early."""
    release_withdrawn: bool = False
    """Central names no release any more, which ends a poll early: the worker keeps the one that it runs."""


class Decline(Message, frozen=True):
    """`POST jobs/{id}/decline`: the worker can't run the job now. It is offered again; no try of the task is used up.

    A trigger can also be declined after it was accepted, when its worker drains. Another worker then runs it.
    """

    reason: ShortText


class Outcome(str, Enum):
    """How a job ended at the worker."""

    SUCCEEDED = "succeeded"
    """The task process exited with 0."""
    FAILED = "failed"
    """It ran and exited with another code (its own terminal state went through the gateway)."""
    STOPPED = "stopped"
    """It was ended by a stop from central."""
    UNPREPARED = "unprepared"
    """It did not start (no such bundle, no such interpreter). The reason is in the task's log."""
    DIED = "died"
    """Its shim vanished without a result (killed, reboot)."""


class Report(Message, frozen=True):
    """`POST jobs/{id}/report`: the job has ended at the worker, and central has acknowledged its whole log."""

    outcome: Outcome
    exit_code: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] | None = None
    reason: ShortText = ""
    log_size: Annotated[int, msgspec.Meta(ge=0, lt=2**62)] = 0
    log_sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    site_code: CodeHash = ""
    """Hash of the worker's Dag file, if it differs from the one that central parsed."""


class EventKind(str, Enum):
    """How a trigger ended."""

    FIRED = "fired"
    """It yielded an event: the task resumes with `payload`."""
    FAILED = "failed"
    """It raised, ended without an event or could not be loaded: the task resumes with a failure."""
    ENDED = "ended"
    """It yielded an event that ends the task without resuming it (such as `TaskSuccessEvent`)."""


class EndState(str, Enum):
    """The state in which a trigger ends its task."""

    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


MAX_TRACEBACK_PARTS = 200
MAX_END_XCOMS = 100


class TriggerEvent(Message, frozen=True):
    """`POST jobs/{id}/event`: the trigger has ended. Resumes its task and ends the job. A repeated event changes nothing."""

    kind: EventKind
    payload: msgspec.Raw = msgspec.Raw(b"null")
    """With `fired`: the event's payload as JSON, as the Task SDK encoded it. Central never decodes it."""
    traceback: Annotated[list[ShortText], msgspec.Meta(max_length=MAX_TRACEBACK_PARTS)] = []
    """With `failed`: text for the task's log."""
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
    """`POST logs`: pieces of the logs of many triggers in one request. The body may be gzip-compressed."""

    chunks: Annotated[list[LogChunk], msgspec.Meta(max_length=MAX_CHUNKS)]


class ChunkResult(Message, frozen=True):
    """The result of one :class:`LogChunk`."""

    job_id: Id
    epoch: int
    size: int = 0
    """How many bytes of this lease's log central has now; continue from there."""
    refused: str = ""
    """Why central accepts no more of this log, now or later; empty if it does."""


class ChunkResults(Message, frozen=True):
    """Answer to `logs`, in the order of the chunks."""

    results: list[ChunkResult]


class LogAppended(Message, frozen=True):
    """Answer to `jobs/{id}/log` and `log`: how many bytes of this job's log, or of this stretch, central has now."""

    size: int


Processors = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
"""How many processors were busy, on average since the last report."""
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class JobUsage(Message, frozen=True):
    """The resources that a job's processes use."""

    cpus: Processors
    memory: Bytes
    """Resident memory, with their share of memory that is shared with other processes."""


class MachineUsage(Message, frozen=True):
    """The resources that a worker's machine uses and has."""

    cpus: Processors
    cpu_count: Processors
    memory: Bytes
    memory_total: Bytes
    disk_free: Bytes
    """On the file system of the worker's state directory."""


class Usage(Message, frozen=True):
    """`POST usage`. Shown to users; nothing relies on it."""

    machine: MachineUsage
    jobs: Annotated[dict[Id, JobUsage], msgspec.Meta(max_length=MAX_JOBS_LISTED)] = {}
    """By job id."""


class UsageNoted(Message, frozen=True):
    """Answer to `usage`."""

    every_s: float
    """When to report again; the interval grows with the number of workers that report."""


class Runtime(Message, frozen=True):
    """`POST runtime`: the runtime of the worker's tasks, and whether it can host them. Sent when it is known and when it changes.

    Central offers no job to a worker with *trouble*, or with versions that are incompatible with its own.
    """

    airflow: Version = ""
    """Version of Airflow; empty: unknown, or not installed (a runtime may have the Task SDK alone)."""
    task_sdk: Version = ""
    """Version of the Task SDK; empty: unknown."""
    python: Version = ""
    trouble: ShortText = ""
    """Why the runtime can't host tasks, and what to do; empty: it ran the worker's canary task."""


class RuntimeNoted(Message, frozen=True):
    """Answer to `runtime`."""

    trouble: str = ""
    """Why central offers this worker no jobs; empty: its runtime is suitable."""


MAX_TREES_LISTED = 1000
MAX_BLOBS_WANTED = 1000


class RuntimePhase(str, Enum):
    """What a worker has done about a runtime that central sends."""

    PREPARING = "preparing"
    READY = "ready"
    """It ran the worker's canary task."""
    FAILED = "failed"


class HeldRuntime(Message, frozen=True):
    """A runtime from central, at a worker."""

    tree: Digest
    phase: RuntimePhase
    airflow: Version = ""
    """As in :class:`Runtime`; empty until it is ready."""
    task_sdk: Version = ""
    python: Version = ""
    detail: ShortText = ""
    """Progress (`code 43 %`), or why it failed and what to do."""


class ReleasePhase(str, Enum):
    """What a worker has done about the release that central named."""

    PREPARING = "preparing"
    """It is fetched, made and tested; the worker still runs another."""
    TRYING = "trying"
    """The worker runs it, and has not proven yet that it works."""
    RUNNING = "running"
    """The worker runs it, and has opened a session and had an answer to a poll with it."""
    FAILED = "failed"
    """The worker runs the one before, and does not try this serial again."""
    REFUSED = "refused"
    """The site's settings or signatures don't allow it."""


class HeldRelease(Message, frozen=True):
    """A release of the worker, at a worker."""

    serial: Annotated[int, msgspec.Meta(ge=0)]
    tree: Digest
    phase: ReleasePhase
    detail: ShortText = ""
    """Progress (`code 43 %`), or why it failed or is refused and what to do."""


class Inventory(Message, frozen=True):
    """`POST inventory`: the trees that the worker holds. Sent when they change.

    Jobs that need a runtime are offered only where it is reported as ready.
    """

    trees: Annotated[list[Digest], msgspec.Meta(max_length=MAX_TREES_LISTED)]
    """Of bundles (capability `bundles`), the most recently used first. Shown to users; nothing relies on it."""
    runtimes: Annotated[list[HeldRuntime], msgspec.Meta(max_length=MAX_RUNTIMES)] = []
    """Capability `runtimes`."""
    release: HeldRelease | None = None
    """The release that central named (capability `releases`); None: it named none."""
    running: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    """Tree of the release that the worker runs; empty: the one that the site has installed."""


class BlobsWanted(Message, frozen=True):
    """`POST trees/{digest}/blobs`: request for single blobs of a tree, because the worker's copies are damaged."""

    blobs: Annotated[list[Digest], msgspec.Meta(min_length=1, max_length=MAX_BLOBS_WANTED)]
    lzma: bool = True
    """Whether the worker can decode LZMA."""


MAX_STATEMENTS = 20
"""Ten about the tree, and ten about keys."""
MAX_STATEMENT = 8192
"""Characters."""


class Statements(Message, frozen=True):
    """Answer to `GET trees/{digest}/statements`: what the owners of keys have signed about a tree."""

    envelopes: Annotated[list[Annotated[str, msgspec.Meta(max_length=MAX_STATEMENT)]], msgspec.Meta(max_length=MAX_STATEMENTS)]
    """Each an in-toto statement in a DSSE envelope, as JSON."""


class Pong(Message, frozen=True):
    """Answer to `GET ping`. Shows that the credential works, and central's clock."""

    name: Name
    time: float
    """Central's wall clock, seconds since the epoch."""
