"""The messages: frozen, bounded, tolerant of unknown fields, and unchanged by encoding and decoding."""

from __future__ import annotations

import inspect

import msgspec
import pytest
from airflow_remote_protocol import messages
from airflow_remote_protocol.codec import Malformed, decode, encode
from airflow_remote_protocol.messages import (
    BlobsWanted,
    Bundle,
    CallbackWorkload,
    ChunkResult,
    ChunkResults,
    ConnectionTestWorkload,
    Credential,
    Decline,
    EndState,
    Enrolled,
    Enrolment,
    EventKind,
    Facts,
    HeldJob,
    HeldRelease,
    HeldRuntime,
    Intent,
    IntentMode,
    Inventory,
    JobKind,
    JobPhase,
    JobUsage,
    LogAppended,
    LogChunk,
    LogChunks,
    MachineUsage,
    Message,
    Offer,
    Outcome,
    Poll,
    PollReply,
    Pong,
    ReleasePhase,
    Report,
    Runtime,
    RuntimeNoted,
    RuntimePhase,
    RuntimeRef,
    Runtimes,
    Session,
    SessionRequest,
    Statements,
    Stop,
    StopReason,
    TaskSettings,
    TaskWorkload,
    TreeRef,
    TriggerEvent,
    TriggerWorkload,
    Usage,
    UsageNoted,
    WantedRelease,
)

INTENT = Intent(mode=IntentMode.SERVE, revision=1, slots=4, reason="night shift")
STOP = Stop(job_id="job", epoch=2, reason=StopReason.ENDED, detail="marked failed by ada")
MACHINE = MachineUsage(cpus=1.5, cpu_count=4.0, memory=1 << 30, memory_total=4 << 30, disk_free=1 << 40)
JOB_USAGE = JobUsage(cpus=0.5, memory=1 << 20)
CHUNK = LogChunk(job_id="job", epoch=2, offset=0, text='{"event": "waits"}\n')
CHUNK_RESULT = ChunkResult(job_id="job", epoch=2, size=19)
HELD = HeldJob(job_id="job", epoch=2, phase=JobPhase.RUNNING)
WORKLOAD = TaskWorkload(ti={"id": "ti", "extra": [None, 1.5]}, dag_rel_path="a/dag.py", bundle=Bundle(name="dags", version="abc"))

TREE = TreeRef(digest="0f" * 32, files=2000, bytes=17_000_000)

RUNTIME = RuntimeRef("default", 3, TREE)
HELD_RUNTIME = HeldRuntime(TREE.digest, RuntimePhase.READY, "3.3.2", "1.3.2", "3.11.7")
HELD_RELEASE = HeldRelease(serial=3, tree=TREE.digest, phase=ReleasePhase.FAILED, detail="it can't be imported")

EXAMPLES: list[Message] = [
    Facts(hostname="ship-7", os="Linux", arch="aarch64", python="3.12.1", version="0.1.0"),
    Enrolment(name="ship-7"),
    Credential(credential="arwkr_…", life_s=2592000.0),
    Enrolled(worker_id="w", name="ship-7", credential="arwkr_…", queues=["ships"]),
    HELD,
    SessionRequest(instance_id="i", boot_id="b", protocol="1.0", capabilities=["task"], slots=4, facts=Facts(), jobs=[HELD]),
    INTENT,
    STOP,
    Session(
        session_id="s",
        worker_id="w",
        name="ship-7",
        protocol="1.0",
        capabilities=[],
        poll_s=20.0,
        retry_s=1.0,
        intent=INTENT,
        stops=[STOP],
    ),
    Offer(
        job_id="job",
        epoch=2,
        kind=JobKind.TASK,
        queue="ships",
        slots=1,
        deadline_s=30.0,
        stop_after_s=3300.0,
        workload=msgspec.Raw(encode(WORKLOAD)),
    ),
    WORKLOAD.bundle,
    CallbackWorkload(callback_id="c", path="alerts.tell", kwargs={"text": "late"}, dag_rel_path="a.py", bundle=WORKLOAD.bundle),
    ConnectionTestWorkload(connection_test_id="t", connection_id="vault", timeout_s=60),
    WORKLOAD,
    TriggerWorkload(
        ti={"id": "ti"},
        classpath="dags.triggers.Wait",
        kwargs=msgspec.Raw(b'{"a":1}'),
        dag_rel_path="a.py",
        bundle=WORKLOAD.bundle,
    ),
    TriggerEvent(kind=EventKind.FIRED, payload=msgspec.Raw(b'{"at":1}')),
    TriggerEvent(kind=EventKind.FAILED, traceback=["Traceback", "ValueError: no"]),
    TriggerEvent(kind=EventKind.ENDED, state=EndState.SUCCESS, xcoms={"return_value": msgspec.Raw(b"1")}),
    CHUNK,
    LogChunks(chunks=[CHUNK]),
    CHUNK_RESULT,
    ChunkResults(results=[CHUNK_RESULT]),
    Poll(free_slots=1, intent_revision=1, wait_s=20.0, jobs=[HELD]),
    PollReply(poll_s=20.0, stops=[STOP], intent=INTENT, pause_s=0.5),
    TaskSettings("a1b2", {"core.default_timezone": "Europe/Berlin"}),
    Decline(reason="the disk is full"),
    Report(outcome=Outcome.FAILED, exit_code=-9, reason="killed", log_size=3, log_sha256="00" * 32),
    LogAppended(size=3),
    MACHINE,
    JOB_USAGE,
    Usage(machine=MACHINE, jobs={"job-1": JOB_USAGE}),
    UsageNoted(every_s=10.0),
    Runtime(airflow="3.3.2", task_sdk="1.3.2", python="3.11.7"),
    RuntimeNoted(trouble="its runtime has the Task SDK 1.2.0"),
    TREE,
    RUNTIME,
    Runtimes(revision="r1", wanted=[RUNTIME], kept=["1a" * 32]),
    HELD_RUNTIME,
    HELD_RELEASE,
    Inventory(
        trees=[TREE.digest],
        runtimes=[HELD_RUNTIME],
        release=HELD_RELEASE,
        running="2b" * 32,
    ),
    WantedRelease(version="0.2.0", serial=3, tree=TREE),
    Statements(envelopes=['{"payload": ""}']),
    BlobsWanted(blobs=["ab" * 32], lzma=False),
    Pong(name="ship-7", time=1_800_000_000.0),
]


def _name(message: Message) -> str:
    return type(message).__name__


def test_there_is_an_example_of_every_message() -> None:
    defined = {kind for _, kind in inspect.getmembers(messages, inspect.isclass) if issubclass(kind, Message)}
    assert {type(message) for message in EXAMPLES} == defined - {Message}


@pytest.mark.parametrize("message", EXAMPLES, ids=_name)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert decode(type(message), encode(message)) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=_name)
def test_a_message_is_frozen(message: Message) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(message, message.__struct_fields__[0], None)


@pytest.mark.parametrize("message", EXAMPLES, ids=_name)
def test_a_message_of_a_newer_minor_version_is_understood(message: Message) -> None:
    newer = b'{"added_in_1_99": {"a": [1, 2]}, ' + encode(message).lstrip(b"{")
    assert decode(type(message), newer) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=_name)
def test_a_message_has_a_docstring(message: Message) -> None:
    assert (type(message).__doc__ or "").strip()


def test_an_offer_carries_its_workload_unchanged() -> None:
    [offer] = [message for message in EXAMPLES if isinstance(message, Offer)]
    received = decode(Offer, encode(offer))
    assert decode(TaskWorkload, bytes(received.workload)) == WORKLOAD


@pytest.mark.parametrize("name", ["ship-7", "a", "A.b_c-1", "7", "x" * 100])
def test_a_plain_name_is_accepted(name: str) -> None:
    assert decode(Enrolment, encode(Enrolment(name=name))).name == name


@pytest.mark.parametrize(
    "name",
    ["", "-ship", ".hidden", "../etc", "two words", "a/b", "schiff-\N{LATIN SMALL LETTER O WITH STROKE}", "x" * 101, "ship\n"],
)
def test_a_name_that_is_unsafe_in_a_path_or_url_is_refused(name: str) -> None:
    with pytest.raises(Malformed):
        decode(Enrolment, encode(Enrolment(name=name)))


@pytest.mark.parametrize("slots", [-1, 10_001, 1.5])
def test_slots_out_of_range_are_refused(slots: float) -> None:
    with pytest.raises(Malformed):
        decode(Poll, b'{"free_slots": %s, "intent_revision": 0, "wait_s": 0}' % str(slots).encode())


def test_the_jobs_listed_are_bounded() -> None:
    jobs = [HELD] * (messages.MAX_JOBS_LISTED + 1)
    with pytest.raises(Malformed, match="length <= 10000"):
        decode(Poll, encode(Poll(free_slots=0, intent_revision=0, wait_s=0, jobs=jobs)))


def test_defaults_are_not_shared_between_messages() -> None:
    first, second = (PollReply(poll_s=1.0) for _ in range(2))
    assert first.offers is not second.offers
