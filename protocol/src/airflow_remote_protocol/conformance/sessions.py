"""A session: who has it, who takes it over, and what becomes of the jobs that it lists."""

from __future__ import annotations

import uuid

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, held, unique
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest
from airflow_remote_protocol.conformance.insist import done, in_state, refused, succeeded
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import MOST_BODY_BYTES
from airflow_remote_protocol.messages import HeldJob, JobPhase, Session, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import MAJOR


def check_a_newer_minor_version_is_welcome(central: CentralUnderTest) -> None:
    session = succeeded(Caller.enrol(central).ask_session(protocol=f"{MAJOR}.99"), Session)
    assert session.protocol.split(".")[0] == str(MAJOR), f"central answers in protocol {session.protocol}"


def check_another_major_version_is_outdated(central: CentralUnderTest) -> None:
    for protocol in (f"{MAJOR + 1}.0", "0.9", "newest"):
        refused(Caller.enrol(central).ask_session(protocol=protocol), ProblemCode.OUTDATED)


def check_a_session_says_how_large_a_body_may_be(central: CentralUnderTest) -> None:
    session = succeeded(Caller.enrol(central).ask_session(), Session)
    assert 65536 <= session.body_bytes <= MOST_BODY_BYTES, f"the session says {session.body_bytes}"


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


def check_a_session_that_was_ended_is_over_and_costs_no_job(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    offer = caller.start_job()
    ended = caller.with_session(caller.open_session(jobs=[held(offer)]))
    done(ended.end_session())
    refused(ended.ask_poll(), ProblemCode.SESSION_TAKEN)
    refused(ended.end_session(), ProblemCode.SESSION_TAKEN)
    in_state(central, offer.job_id, JobState.RUNNING)
    session = caller.open_session(jobs=[held(offer)])
    assert not session.stops, "the job that ran on is adopted"
    done(caller.report(offer))


def check_an_older_session_ends_no_newer_one(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    old = caller.with_session(caller.open_session())
    caller.open_session()
    refused(old.end_session(), ProblemCode.SESSION_TAKEN)
    caller.poll()


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
