"""A session: who holds it, who takes it over, and what happens to the jobs that it lists."""

from __future__ import annotations

import uuid

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, held, unique
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_no_content, expect_refusal, expect_state
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import MAX_BODY_BYTES
from airflow_remote_protocol.messages import HeldJob, JobPhase, Session, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import MAJOR


def check_a_newer_minor_version_is_accepted(central: CentralUnderTest) -> None:
    session = expect_message(Caller.enrol(central).ask_session(protocol=f"{MAJOR}.99"), Session)
    assert session.protocol.split(".")[0] == str(MAJOR), f"central answers in protocol {session.protocol}"


def check_another_major_version_is_outdated(central: CentralUnderTest) -> None:
    for protocol in (f"{MAJOR + 1}.0", "0.9", "newest"):
        expect_refusal(Caller.enrol(central).ask_session(protocol=protocol), ProblemCode.OUTDATED)


def check_a_session_states_the_limit_of_bodies(central: CentralUnderTest) -> None:
    session = expect_message(Caller.enrol(central).ask_session(), Session)
    assert 65536 <= session.body_bytes <= MAX_BODY_BYTES, f"the session states {session.body_bytes}"


def check_a_call_without_a_session_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    expect_refusal(caller.ask_poll(), ProblemCode.SESSION_TAKEN, ProblemCode.INVALID)


def check_a_restarted_worker_takes_over_at_once(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    old = caller.with_session(caller.open_session(jobs=[held(offer)]))
    parked = ParkedPoll(old, jobs=[held(offer)])
    caller.open_session(jobs=[held(offer)])
    expect_refusal(parked.ends_within(PROMPT_S, "a new session took over"), ProblemCode.SESSION_TAKEN)
    expect_refusal(old.ask_poll(), ProblemCode.SESSION_TAKEN)
    expect_refusal(old.log(offer, 0, b"late"), ProblemCode.SESSION_TAKEN)
    expect_refusal(old.report(offer), ProblemCode.SESSION_TAKEN)
    expect_state(central, offer.job_id, JobState.RUNNING)
    expect_no_content(caller.report(offer))


def check_ending_a_session_costs_no_job(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    ended = caller.with_session(caller.open_session(jobs=[held(offer)]))
    expect_no_content(ended.end_session())
    expect_refusal(ended.ask_poll(), ProblemCode.SESSION_TAKEN)
    expect_refusal(ended.end_session(), ProblemCode.SESSION_TAKEN)
    expect_state(central, offer.job_id, JobState.RUNNING)
    session = caller.open_session(jobs=[held(offer)])
    assert not session.stops, "the job that kept running must be adopted"
    expect_no_content(caller.report(offer))


def check_an_older_session_cannot_end_a_newer_one(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    old = caller.with_session(caller.open_session())
    caller.open_session()
    expect_refusal(old.end_session(), ProblemCode.SESSION_TAKEN)
    caller.poll()


def check_a_clone_is_refused_and_does_not_disturb_the_original(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    parked = ParkedPoll(caller, free_slots=1)
    expect_refusal(caller.ask_session(instance_id=unique("instance")), ProblemCode.CLONED)
    job_id = central.enqueue(caller.queue)
    reply = parked.replies_within(PROMPT_S, "a job was queued; the refused clone must not have ended the poll")
    assert [offer.job_id for offer in reply.offers] == [job_id], "the first machine must not be affected"


def check_the_same_start_of_a_worker_may_open_a_session_again(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    boot = unique("boot")
    first = caller.open_session(boot_id=boot)
    offer = caller.start_job()
    again = caller.open_session(
        boot_id=boot, jobs=[held(offer)]
    )  # as after a lost reply, or when central's database was restored
    assert again.session_id != first.session_id and not again.stops, "each session is new, and costs no job"
    expect_no_content(caller.report(offer))


def check_the_later_of_two_copies_of_a_machine_is_refused(central: CentralUnderTest) -> None:
    first = Caller.enrol(central)
    boots = unique("first"), unique("later")
    first.open_session(boot_id=boots[0])
    offer = first.start_job()
    later = first.with_session(expect_message(first.ask_session(boot_id=boots[1]), Session))  # looks like a restart
    expect_refusal(first.ask_poll(), ProblemCode.SESSION_TAKEN)
    expect_state(central, offer.job_id, JobState.RUNNING)
    first.open_session(boot_id=boots[0], jobs=[held(offer)])
    expect_refusal(later.ask_poll(), ProblemCode.SESSION_TAKEN)
    for _ in range(2):
        expect_refusal(later.ask_session(boot_id=boots[1]), ProblemCode.CLONED)
    assert not first.poll(jobs=[held(offer)]).stops, "the first one's job must go on"
    central.pass_grace(offer.job_id)
    expect_state(central, offer.job_id, JobState.RUNNING)
    expect_no_content(first.report(offer))


def check_a_running_job_that_a_new_session_does_not_list_is_lost_after_a_grace(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    kept, forgotten = caller.start_job(), caller.start_job()
    session = caller.open_session(jobs=[held(kept)])
    assert not session.stops, "the listed job of this worker must go on"
    for offer in (kept, forgotten):
        expect_state(central, offer.job_id, JobState.RUNNING)
        central.pass_grace(offer.job_id)
    expect_state(central, kept.job_id, JobState.RUNNING)
    expect_state(central, forgotten.job_id, JobState.LOST)


def check_a_job_that_is_listed_again_within_the_grace_is_not_lost(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    caller.open_session()
    assert not caller.poll(jobs=[held(offer)]).stops, "it still belongs to this worker"
    central.pass_grace(offer.job_id)
    expect_state(central, offer.job_id, JobState.RUNNING)
    expect_no_content(caller.report(offer))


def check_a_new_session_stops_jobs_that_are_not_its_workers(central: CentralUnderTest) -> None:
    other = Caller.connect(central)
    theirs = other.start_job()
    caller = Caller.connect(central)
    ours = caller.start_job()
    unknown = HeldJob(job_id=str(uuid.uuid4()), epoch=1, phase=JobPhase.RUNNING)
    stale = HeldJob(job_id=ours.job_id, epoch=ours.epoch - 1, phase=JobPhase.RUNNING)
    session = caller.open_session(jobs=[held(ours), held(theirs), unknown, stale])
    stopped = {(stop.job_id, stop.epoch) for stop in session.stops if stop.reason is StopReason.SUPERSEDED}
    wanted = {(entry.job_id, entry.epoch) for entry in (held(theirs), unknown, stale)}
    assert stopped == wanted, f"listed jobs of others must be stopped as superseded: {wanted}, got {session.stops}"
    expect_state(central, theirs.job_id, JobState.RUNNING)


def check_a_stop_outlives_a_restart_of_the_worker(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    central.end_task(offer.job_id)
    stops = caller.open_session(jobs=[held(offer)]).stops
    stops = stops or caller.poll(jobs=[held(offer)], wait_s=PROMPT_S).stops
    assert [stop.job_id for stop in stops] == [offer.job_id], "a restarted worker must still learn that a user ended its task"
