"""Central names the release of its own software that a worker should run."""

from __future__ import annotations

import time
from collections.abc import Mapping

from airflow_remote_protocol.conformance.caller import EVERYTHING, Caller, ParkedPoll, unique
from airflow_remote_protocol.conformance.central import PARKED_S, PLATFORM, PROMPT_S, CentralUnderTest
from airflow_remote_protocol.conformance.expect import describe, expect_message, expect_no_content, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import HeldRelease, Inventory, PollReply, ReleasePhase, WantedRelease
from airflow_remote_protocol.version import Capability

TAKES_RELEASES = (*EVERYTHING, Capability.RELEASES.value)


def check_a_session_names_the_release_that_the_worker_should_run(central: CentralUnderTest) -> None:
    digest = central.roll_release(_files())
    wanted = _named(_connect(central))
    assert wanted.tree.digest == digest, f"expected the tree {digest}, got {wanted}"
    assert (wanted.tree.files, wanted.tree.bytes) == (2, sum(map(len, _files().values())))


def check_a_worker_without_the_capability_is_named_no_release(central: CentralUnderTest) -> None:
    digest = central.roll_release(_files())
    caller = Caller.enrol(central)
    assert caller.open_session(platform=PLATFORM).release is None
    assert expect_message(caller.ask_poll(wait_s=0.1), PollReply).release is None
    expect_refusal(caller.call("GET", f"trees/{digest}/pack"), ProblemCode.NOT_FOUND)


def check_a_new_release_ends_the_poll_of_a_worker_that_should_run_it(central: CentralUnderTest) -> None:
    central.roll_release(_files())
    caller = _connect(central)
    before = _named(caller)
    parked = ParkedPoll(caller, release=before.serial)
    digest = central.roll_release(_files())
    reply = parked.replies_within(PROMPT_S, "another release is wanted")
    assert reply.release is not None, f"the release has changed, but the reply is {reply}"
    assert reply.release.tree.digest == digest
    assert reply.release.serial > before.serial, "serials rise"


def check_a_known_release_is_not_named_again(central: CentralUnderTest) -> None:
    central.roll_release(_files())
    caller = _connect(central)
    asked_at = time.monotonic()
    reply = expect_message(caller.ask_poll(wait_s=0.5, release=_named(caller).serial), PollReply)
    assert (reply.release, reply.release_withdrawn) == (None, False), "this worker was named that release"
    assert time.monotonic() - asked_at >= 0.4, "a poll whose release is current waits"
    reply = expect_message(caller.ask_poll(wait_s=PARKED_S, release=0), PollReply)
    assert reply.release == _named(caller), "a worker that was named none is named it"


def check_a_release_that_is_withdrawn_ends_the_poll_of_a_worker_that_was_named_it(central: CentralUnderTest) -> None:
    digest = central.roll_release(_files())
    caller = _connect(central)
    parked = ParkedPoll(caller, release=_named(caller).serial)
    central.withdraw_release()
    reply = parked.replies_within(PROMPT_S, "the release is withdrawn")
    assert (reply.release, reply.release_withdrawn) == (None, True), f"expected the withdrawal, got {reply}"
    expect_refusal(caller.call("GET", f"trees/{digest}/pack"), ProblemCode.NOT_FOUND)


def check_only_the_tree_of_the_named_release_may_be_fetched(central: CentralUnderTest) -> None:
    old = central.roll_release(_files())
    named = central.roll_release(_files())
    caller = _connect(central)
    response = caller.call("GET", f"trees/{named}/pack", headers={"accept-encoding": "identity"})
    assert response.status == 200, describe(response)
    expect_refusal(caller.call("GET", f"trees/{old}/pack"), ProblemCode.NOT_FOUND)


def check_a_worker_reports_what_has_become_of_the_release(central: CentralUnderTest) -> None:
    central.roll_release(_files())
    caller = _connect(central)
    wanted = _named(caller)
    for phase in ReleasePhase:
        held = HeldRelease(wanted.serial, wanted.tree.digest, phase, detail="as it is")
        running = wanted.tree.digest if phase is ReleasePhase.RUNNING else ""
        expect_no_content(caller.call("POST", "inventory", Inventory([], release=held, running=running)))


def _files() -> Mapping[str, bytes]:
    return {"release.json": unique("release").encode(), "site-packages/module.py": b"VALUE = 1\n"}


def _connect(central: CentralUnderTest) -> Caller:
    caller = Caller.enrol(central)
    caller.open_session(capabilities=TAKES_RELEASES, platform=PLATFORM)
    return caller


def _named(caller: Caller) -> WantedRelease:
    assert caller.session is not None and caller.session.release is not None, f"no release is named in {caller.session}"
    return caller.session.release
