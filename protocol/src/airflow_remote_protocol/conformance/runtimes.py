"""A worker reports the runtime of its tasks, or gets it from central."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from airflow_remote_protocol.conformance.caller import EVERYTHING, Caller, ParkedPoll, held, unique
from airflow_remote_protocol.conformance.central import PARKED_S, PLATFORM, PROMPT_S, CentralUnderTest
from airflow_remote_protocol.conformance.expect import describe, expect_message, expect_no_content, expect_refusal, expect_state
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import (
    HeldRuntime,
    Inventory,
    JobKind,
    JobPhase,
    PollReply,
    Runtime,
    RuntimeNoted,
    RuntimePhase,
    RuntimeRef,
    Runtimes,
)
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import Capability

TAKES_RUNTIMES = (*EVERYTHING, Capability.RUNTIMES.value)
VERSIONS = {"airflow": "3.3.2", "task_sdk": "1.3.2", "python": "3.11.9"}
"""Of a runtime that every central of this version accepts."""


# The site's own runtime


def check_a_worker_with_a_faulty_runtime_gets_no_offers_until_it_is_repaired(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    noted = expect_message(caller.call("POST", "runtime", Runtime(trouble="libfoo.so is missing")), RuntimeNoted)
    assert noted.trouble == "libfoo.so is missing"
    job_id = central.enqueue(caller.queue)
    assert caller.poll(free_slots=1, wait_s=PARKED_S).offers == []
    assert expect_message(caller.call("POST", "runtime", Runtime()), RuntimeNoted).trouble == ""
    assert caller.await_offer().job_id == job_id


def check_a_malformed_runtime_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    bad: tuple[object, ...] = ({"trouble": 1}, {"trouble": "x" * 2001}, {"airflow": "x" * 51}, [], None)
    for body in bad:
        expect_refusal(caller.call("POST", "runtime", body=json.dumps(body).encode()), ProblemCode.INVALID)


def check_a_runtime_without_the_session_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    expect_refusal(caller.call("POST", "runtime", Runtime()), ProblemCode.SESSION_TAKEN, ProblemCode.INVALID)


# Runtimes that central sends


def check_a_session_lists_the_runtimes_that_the_worker_should_have(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    assert _wanted(caller) == [], "nothing was built for its queue"
    digest = central.roll_runtime(caller.queue, _files())
    (ref,) = _wanted(caller)
    assert ref.tree.digest == digest, f"expected the tree {digest}, got {ref}"
    assert ref.serial >= 1
    assert (ref.tree.files, ref.tree.bytes) == (2, sum(map(len, _files().values())))


def check_a_worker_without_the_capability_is_sent_no_runtimes(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    central.roll_runtime(caller.queue, _files())
    assert caller.open_session().runtimes is None
    assert expect_message(caller.ask_poll(wait_s=0.1), PollReply).runtimes is None
    job_id = central.enqueue(caller.queue)
    offer = caller.await_offer()
    assert (offer.job_id, offer.runtime) == (job_id, None), "a worker with its own runtime is offered jobs as before"


def check_a_new_runtime_ends_the_poll_of_a_worker_that_should_have_it(central: CentralUnderTest) -> None:
    caller = _connect(central)
    parked = ParkedPoll(caller, runtimes=_listed(caller).revision)
    digest = central.roll_runtime(caller.queue, _files())
    reply = parked.replies_within(PROMPT_S, "another runtime is wanted")
    assert reply.runtimes is not None, f"the runtimes have changed, but the reply is {reply}"
    assert [ref.tree.digest for ref in reply.runtimes.wanted] == [digest]
    assert reply.runtimes.revision != _listed(caller).revision, "another list has another revision"


def check_a_known_list_of_runtimes_is_not_sent_again(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    central.roll_runtime(caller.queue, _files())
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM)
    asked_at = time.monotonic()
    reply = expect_message(caller.ask_poll(wait_s=0.5, runtimes=_listed(caller).revision), PollReply)
    assert reply.runtimes is None, "this worker has that list"
    assert time.monotonic() - asked_at >= 0.4, "a poll whose list is current waits"
    reply = expect_message(caller.ask_poll(wait_s=PARKED_S, runtimes=""), PollReply)
    assert reply.runtimes == _listed(caller), "a worker without the list gets it"


def check_the_runtime_before_is_kept_for_a_rollback(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    first = central.roll_runtime(caller.queue, _files())
    (before,) = _wanted(caller)
    second = central.roll_runtime(caller.queue, _files())
    (ref,) = _wanted(caller)
    assert ref.tree.digest == second
    assert (ref.name, ref.serial > before.serial) == (before.name, True), f"serials of a name rise: {before}, then {ref}"
    assert _listed(caller).kept == [first]


def check_the_tree_of_a_wanted_runtime_may_be_fetched(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    first = central.roll_runtime(caller.queue, _files())
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM)
    response = caller.call("GET", f"trees/{first}/pack", headers={"accept-encoding": "identity"})
    assert response.status == 200, describe(response)
    second = central.roll_runtime(caller.queue, _files())
    response = caller.call("GET", f"trees/{second}/pack?base={first}", headers={"accept-encoding": "identity"})
    assert response.status == 200, describe(response)


def check_a_runtime_that_is_not_wanted_is_not_found(central: CentralUnderTest) -> None:
    caller = _connect(central)
    other = central.roll_runtime(unique("queue"), _files())
    own = central.roll_runtime(caller.queue, _files())
    site = Caller.connect(central, [caller.queue])
    expect_refusal(caller.call("GET", f"trees/{other}/pack"), ProblemCode.NOT_FOUND)
    expect_refusal(site.call("GET", f"trees/{own}/pack"), ProblemCode.NOT_FOUND)


def check_jobs_are_offered_only_where_their_runtime_is_ready(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    digest = central.roll_runtime(caller.queue, _files())
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM)
    job_id = central.enqueue(caller.queue)
    _report(caller)
    assert not _poll(caller).offers, "the worker holds no runtime"
    _report(caller, HeldRuntime(digest, RuntimePhase.PREPARING, detail="code 43 %"))
    assert not _poll(caller).offers, "the runtime is not ready"
    _report(caller, HeldRuntime(digest, RuntimePhase.FAILED, detail="libfoo.so is missing"))
    assert not _poll(caller).offers, "the runtime has failed"
    expect_state(central, job_id, JobState.QUEUED)
    _report(caller, _ready(digest))
    offer = caller.await_offer()
    assert offer.job_id == job_id
    assert offer.runtime is not None, "the offer names its runtime"
    assert offer.runtime.tree.digest == digest
    assert offer.runtime in _listed(caller).wanted


def check_a_runtime_that_becomes_ready_gives_a_parked_poll_its_offer(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    digest = central.roll_runtime(caller.queue, _files())
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM)
    job_id = central.enqueue(caller.queue)
    parked = ParkedPoll(caller, free_slots=1, runtimes=_listed(caller).revision)
    _report(caller, _ready(digest))
    reply = parked.replies_within(PROMPT_S, "the runtime of its job is ready")
    assert [offer.job_id for offer in reply.offers] == [job_id], f"expected an offer of {job_id}, got {reply}"


def check_the_runtime_before_serves_until_the_new_one_is_ready(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    first = central.roll_runtime(caller.queue, _files())
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM)
    _report(caller, _ready(first))
    second = central.roll_runtime(caller.queue, _files())
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM)
    _report(caller, HeldRuntime(second, RuntimePhase.PREPARING), _ready(first))
    central.enqueue(caller.queue)
    old = caller.await_offer()
    assert old.runtime is not None and old.runtime.tree.digest == first, f"only {first} is ready, got {old.runtime}"
    _report(caller, _ready(second), _ready(first))
    central.enqueue(caller.queue)
    new = caller.await_offer(jobs=[held(old, JobPhase.PREPARING)])
    assert new.runtime is not None and new.runtime.tree.digest == second, f"{second} is ready and wanted, got {new.runtime}"
    response = caller.call("GET", f"trees/{first}/pack", headers={"accept-encoding": "identity"})
    assert response.status == 200, "an open job runs in it"


def check_a_daemon_that_has_started_again_has_no_runtime_ready_until_it_reports_one(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    digest = central.roll_runtime(caller.queue, _files())
    boot_id = unique("boot")
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM, boot_id=boot_id)
    _report(caller, _ready(digest))
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM, boot_id=boot_id)
    central.enqueue(caller.queue)
    first = caller.await_offer()
    assert first.runtime is not None, "the same daemon has opened another session"
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM, jobs=[held(first, JobPhase.PREPARING)])
    central.enqueue(caller.queue)
    assert not _poll(caller).offers, "a daemon that has just started tests its runtimes again"
    _report(caller, _ready(digest))
    assert caller.await_offer(jobs=[held(first, JobPhase.PREPARING)]).runtime is not None


def check_every_kind_of_job_names_its_runtime(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    digest = central.roll_runtime(caller.queue, _files())
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM)
    _report(caller, _ready(digest))
    workload = {"path": "alerts.tell", "kwargs": {}, "dag_rel_path": "dag.py", "bundle": {"name": "b", "version": None}}
    central.enqueue(caller.queue, kind=JobKind.CALLBACK, workload=workload)
    offer = caller.await_offer()
    assert offer.kind is JobKind.CALLBACK
    assert offer.runtime is not None and offer.runtime.tree.digest == digest


def check_a_malformed_list_of_held_runtimes_is_invalid(central: CentralUnderTest) -> None:
    caller = _connect(central)
    one: Mapping[str, object] = {"tree": "0" * 64, "phase": "ready"}
    bad: tuple[object, ...] = (
        *([{**one, "tree": "x"}], [{**one, "phase": "asleep"}], [{**one, "detail": "x" * 2001}], [{**one, "airflow": "x" * 51}]),
        *([{"tree": "0" * 64}], [one] * 51, one, "0", None),
    )
    for runtimes in bad:
        body = json.dumps({"trees": [], "runtimes": runtimes}).encode()
        expect_refusal(caller.call("POST", "inventory", body=body), ProblemCode.INVALID)
    expect_no_content(caller.call("POST", "inventory", body=json.dumps({"trees": [], "runtimes": [one] * 50}).encode()))


# What the checks share


def _files() -> dict[str, bytes]:
    """Return the contents of a runtime that no other check uses."""
    return {"site-packages/one.py": unique("content").encode(), "runtime.json": b'{"format": 1}'}


def _connect(central: CentralUnderTest) -> Caller:
    """Enrol a worker that takes runtimes, and open its session."""
    caller = Caller.enrol(central)
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM)
    return caller


def _wanted(caller: Caller) -> list[RuntimeRef]:
    """Open a session as a worker that takes runtimes; return what it should have."""
    caller.open_session(capabilities=TAKES_RUNTIMES, platform=PLATFORM)
    return _listed(caller).wanted


def _listed(caller: Caller) -> Runtimes:
    assert caller.session is not None
    assert caller.session.runtimes is not None, "a worker with the capability is sent the list of its runtimes, even an empty one"
    return caller.session.runtimes


def _report(caller: Caller, *runtimes: HeldRuntime) -> None:
    expect_no_content(caller.call("POST", "inventory", Inventory(trees=[], runtimes=list(runtimes))))


def _ready(digest: str) -> HeldRuntime:
    return HeldRuntime(digest, RuntimePhase.READY, **VERSIONS)


def _poll(caller: Caller) -> PollReply:
    return expect_message(caller.ask_poll(free_slots=1, runtimes=_listed(caller).revision), PollReply)
