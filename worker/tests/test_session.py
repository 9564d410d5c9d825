from __future__ import annotations

import pytest
from airflow_remote_protocol.messages import (
    MAX_JOBS_LISTED,
    Intent,
    IntentMode,
    JobKind,
    JobPhase,
    Offer,
    PollReply,
    RuntimeRef,
    Runtimes,
    Stop,
    StopReason,
    TaskSettings,
    TreeRef,
)
from airflow_remote_worker.lease import SITE, Lease
from airflow_remote_worker.session import WorkerSession

from .conftest import make_offer


def stop(job_id: str, epoch: int = 1, reason: StopReason = StopReason.ENDED) -> Stop:
    return Stop(job_id=job_id, epoch=epoch, reason=reason)


@pytest.fixture
def session() -> WorkerSession:
    return WorkerSession(slots=4)


def test_an_offer_that_fits_is_taken_and_listed(session: WorkerSession) -> None:
    actions = session.on_reply(PollReply(poll_s=30, offers=[make_offer("a", slots=3)]))
    assert [offer.job_id for offer in actions.take] == ["a"]
    poll = session.next_poll(60)
    assert poll.free_slots == 1
    assert [(job.job_id, job.epoch, job.phase) for job in poll.jobs] == [("a", 1, JobPhase.PREPARING)]


def test_an_offer_that_does_not_fit_is_declined(session: WorkerSession) -> None:
    session.hold(make_offer("a", slots=3))
    actions = session.on_reply(PollReply(poll_s=30, offers=[make_offer("b", slots=2)]))
    assert not actions.take
    assert "needs 2" in actions.decline[0][1]


def test_without_room_no_slots_are_free_and_offers_are_declined_with_the_reason(
    session: WorkerSession,
) -> None:
    session.no_room = "disk full: only 3 MB are free"
    assert session.next_poll(60).free_slots == 0
    actions = session.on_reply(PollReply(poll_s=30, offers=[make_offer("a")]))
    assert actions.decline[0][1] == "disk full: only 3 MB are free"
    session.no_room = ""
    assert session.next_poll(60).free_slots == 4


def test_on_probation_one_new_job_is_taken_whatever_its_slots(session: WorkerSession) -> None:
    session.hold(make_offer("old", slots=2), JobPhase.RUNNING)
    session.on_probation = frozenset({SITE})
    assert session.next_poll(60).free_slots == 2
    actions = session.on_reply(PollReply(poll_s=30, offers=[make_offer("a", slots=1), make_offer("b", slots=1)]))
    assert [offer.job_id for offer in actions.take] == ["a"]
    assert [offer.job_id for offer, _ in actions.decline] == ["b"]
    assert session.next_poll(60).free_slots == 0
    session.move(Lease("a", 1), JobPhase.ENDED)
    assert session.next_poll(60).free_slots == 2
    session.hold(make_offer("c"))
    session.on_probation = frozenset()  # its code has begun
    assert session.next_poll(60).free_slots == 1


ONE, TWO = (RuntimeRef("default", serial, TreeRef(str(serial) * 64, 1, 1)) for serial in (1, 2))


def test_an_offer_for_a_runtime_that_is_not_ready_is_declined_with_its_name(session: WorkerSession) -> None:
    session.ready = frozenset({ONE.tree.digest})
    offers = [make_offer("a", runtime=ONE), make_offer("b", runtime=TWO), make_offer("c")]
    actions = session.on_reply(PollReply(poll_s=30, offers=offers))
    assert [offer.job_id for offer in actions.take] == ["a"]
    assert [reason for _, reason in actions.decline] == [
        "the runtime 'default' 2 is not ready on this worker",
        "the offer names no runtime, and this worker has none of its own (runtime.python)",
    ]


def test_probation_of_one_runtime_leaves_the_others_free(session: WorkerSession) -> None:
    session.ready = frozenset({ONE.tree.digest, TWO.tree.digest})
    session.on_probation = frozenset({ONE.tree.digest})
    offers = [make_offer("a", runtime=ONE), make_offer("b", runtime=ONE), make_offer("c", runtime=TWO)]
    actions = session.on_reply(PollReply(poll_s=30, offers=offers))
    assert [offer.job_id for offer in actions.take] == ["a", "c"]
    assert [offer.job_id for offer, _ in actions.decline] == ["b"]
    assert session.next_poll(60).free_slots == 2


def test_the_revision_of_the_runtimes_is_polled_with_only_by_a_worker_that_takes_them(session: WorkerSession) -> None:
    listed = Runtimes("r1", [ONE])
    assert session.on_reply(PollReply(poll_s=30, runtimes=listed)).runtimes is None
    assert session.next_poll(60).runtimes_revision is None
    session.runtimes_revision = ""
    assert session.open(Intent(mode=IntentMode.SERVE, revision=1), [], None, listed).runtimes == listed
    assert session.next_poll(60).runtimes_revision == "r1"


def test_the_same_offer_again_changes_nothing(session: WorkerSession) -> None:
    session.hold(make_offer("a"), JobPhase.RUNNING)
    actions = session.on_reply(PollReply(poll_s=30, offers=[make_offer("a")]))
    assert (actions.take, actions.decline, actions.stop) == ([], [], [])


def test_a_newer_offer_of_a_running_job_stops_the_old_one_and_is_declined(session: WorkerSession) -> None:
    session.hold(make_offer("a", 1), JobPhase.RUNNING)
    actions = session.on_reply(PollReply(poll_s=30, offers=[make_offer("a", 2)]))
    assert [(s.epoch, s.reason) for s in actions.stop] == [(1, StopReason.SUPERSEDED)]
    assert [offer.epoch for offer, _ in actions.decline] == [2]
    assert not session.holds(Lease("a", 2))


def test_a_newer_offer_of_an_ended_job_is_taken_and_the_old_report_dropped(session: WorkerSession) -> None:
    session.hold(make_offer("a", 1), JobPhase.ENDED)
    actions = session.on_reply(PollReply(poll_s=30, offers=[make_offer("a", 2)]))
    assert [offer.epoch for offer in actions.take] == [2]
    assert actions.drop == [Lease("a", 1)]


def test_a_stop_is_returned_once(session: WorkerSession) -> None:
    session.hold(make_offer("a"), JobPhase.RUNNING)
    assert len(session.on_reply(PollReply(poll_s=30, stops=[stop("a")])).stop) == 1
    assert session.on_reply(PollReply(poll_s=30, stops=[stop("a")])).stop == []
    assert session.held()[0].phase is JobPhase.STOPPING


def test_a_stop_for_an_older_epoch_than_ours_is_ignored(session: WorkerSession) -> None:
    session.hold(make_offer("a", 2), JobPhase.RUNNING)
    assert session.on_reply(PollReply(poll_s=30, stops=[stop("a", 1)])).stop == []


def test_a_stop_for_a_job_we_do_not_hold_is_ignored(session: WorkerSession) -> None:
    assert session.on_reply(PollReply(poll_s=30, stops=[stop("a")])).stop == []


def test_an_ended_job_that_is_superseded_is_dropped(session: WorkerSession) -> None:
    session.hold(make_offer("a"), JobPhase.ENDED)
    actions = session.on_reply(PollReply(poll_s=30, stops=[stop("a", reason=StopReason.SUPERSEDED)]))
    assert actions.drop == [Lease("a", 1)]
    assert actions.stop == []


def test_phases_only_go_forward(session: WorkerSession) -> None:
    lease = session.hold(make_offer("a"), JobPhase.STOPPING)
    session.move(lease, JobPhase.RUNNING)
    assert session.held()[0].phase is JobPhase.STOPPING


def test_an_ended_job_frees_its_slots_but_stays_listed(session: WorkerSession) -> None:
    lease = session.hold(make_offer("a", slots=4))
    session.move(lease, JobPhase.ENDED)
    assert session.free_slots() == 4
    assert len(session.held()) == 1
    session.release(lease)
    assert session.is_idle


@pytest.mark.parametrize("mode", [IntentMode.PAUSE, IntentMode.DRAIN, IntentMode.LEAVE])
def test_only_serve_takes_work(session: WorkerSession, mode: IntentMode) -> None:
    actions = session.on_reply(PollReply(poll_s=30, intent=Intent(mode=mode, revision=5), offers=[make_offer("a")]))
    assert actions.intent is not None
    assert session.free_slots() == 0
    assert [offer.job_id for offer, _ in actions.decline] == ["a"]


def test_an_older_intent_is_ignored(session: WorkerSession) -> None:
    session.on_reply(PollReply(poll_s=30, intent=Intent(mode=IntentMode.PAUSE, revision=5)))
    assert session.on_reply(PollReply(poll_s=30, intent=Intent(mode=IntentMode.SERVE, revision=4))).intent is None
    assert session.next_poll(30).intent_revision == 5


def test_central_can_reduce_the_slots_but_not_increase_them(session: WorkerSession) -> None:
    session.on_reply(PollReply(poll_s=30, intent=Intent(mode=IntentMode.SERVE, revision=1, slots=2)))
    assert session.free_slots() == 2
    session.on_reply(PollReply(poll_s=30, intent=Intent(mode=IntentMode.SERVE, revision=2, slots=99)))
    assert session.free_slots() == 4


def test_a_draining_worker_declines(session: WorkerSession) -> None:
    session.draining = True
    assert session.on_reply(PollReply(poll_s=30, offers=[make_offer("a")])).decline


def test_polls_are_short_while_an_offer_must_be_renewed(session: WorkerSession) -> None:
    lease = session.hold(make_offer("a", deadline_s=30))
    assert session.next_poll(60).wait_s == 10
    session.move(lease, JobPhase.RUNNING)
    assert session.next_poll(60).wait_s == 60


def test_polls_are_short_while_a_job_would_soon_be_lost(session: WorkerSession) -> None:
    lease = session.hold(make_offer("a", stop_after_s=15, deadline_s=30))
    assert session.next_poll(60).wait_s == 5
    session.move(lease, JobPhase.RUNNING)
    assert session.next_poll(60).wait_s == 5
    session.move(lease, JobPhase.ENDED)
    assert session.next_poll(60).wait_s == 60


def test_a_lost_running_job_is_stopped_and_a_lost_ended_one_is_still_reported(session: WorkerSession) -> None:
    session.hold(make_offer("runs"), JobPhase.RUNNING)
    session.hold(make_offer("ended"), JobPhase.ENDED)
    actions = session.on_reply(PollReply(poll_s=30, stops=[stop(job, reason=StopReason.LOST) for job in ("runs", "ended")]))
    assert [(lost.job_id, lost.reason) for lost in actions.stop] == [("runs", StopReason.LOST)]
    assert actions.drop == []


def test_time_without_contact_counts_from_the_start_of_the_last_contact(session: WorkerSession) -> None:
    lease = session.hold(make_offer("a", stop_after_s=100))
    session.note_contact(50)
    session.note_contact(40)
    assert session.left_s(lease, 60) == 90
    assert session.left_s(lease, 150) == 0
    assert session.left_s(Lease("b", 1), 60) is None


def test_an_offer_counts_as_contact(session: WorkerSession) -> None:
    session.note_contact(50)  # when the poll began
    session.on_reply(PollReply(poll_s=60, offers=[make_offer("a", stop_after_s=15)]), now=100)
    assert session.left_s(Lease("a", 1), 101) == 14
    session.note_contact(105)
    assert session.left_s(Lease("a", 1), 106) == 14


def test_the_intent_of_a_new_session_counts(session: WorkerSession) -> None:
    session.on_reply(PollReply(poll_s=30, intent=Intent(mode=IntentMode.PAUSE, revision=9)))
    session.hold(make_offer("a"), JobPhase.RUNNING)
    actions = session.open(Intent(mode=IntentMode.SERVE, revision=1), [stop("a", reason=StopReason.SUPERSEDED)])
    assert session.intent.mode is IntentMode.SERVE
    assert len(actions.stop) == 1


def trigger(job_id: str, epoch: int = 1) -> Offer:
    return make_offer(job_id, epoch, kind=JobKind.TRIGGER, slots=1)


def test_triggers_take_no_slots_and_have_their_own_limit() -> None:
    session = WorkerSession(slots=1, triggers=2)
    actions = session.on_reply(PollReply(poll_s=30, offers=[trigger("a"), trigger("b"), make_offer("task"), trigger("c")]))
    assert [offer.job_id for offer in actions.take] == ["a", "b", "task"]
    assert [(offer.job_id, "2 triggers" in reason) for offer, reason in actions.decline] == [("c", True)]
    poll = session.next_poll(60)
    assert (poll.free_slots, poll.free_triggers, len(poll.jobs)) == (0, 0, 3)


def test_an_ended_trigger_makes_room_before_central_has_everything() -> None:
    session = WorkerSession(slots=1, triggers=1)
    session.hold(trigger("a"), JobPhase.RUNNING)
    assert session.free_triggers() == 0
    session.move(Lease("a", 1), JobPhase.ENDED)
    assert session.free_triggers() == 1


@pytest.mark.parametrize("mode", [IntentMode.PAUSE, IntentMode.DRAIN, IntentMode.LEAVE])
def test_no_triggers_are_taken_unless_the_worker_serves(mode: IntentMode) -> None:
    session = WorkerSession(slots=1, triggers=5)
    session.open(Intent(mode=mode, revision=1), [])
    assert session.next_poll(60).free_triggers == 0
    assert session.on_reply(PollReply(poll_s=30, offers=[trigger("a")])).decline
    session.open(Intent(mode=IntentMode.SERVE, revision=2), [])
    session.draining = True
    assert session.next_poll(60).free_triggers == 0


def test_all_leases_fit_into_one_poll_with_room_for_the_tasks() -> None:
    session = WorkerSession(slots=10, triggers=MAX_JOBS_LISTED)
    for n in range(MAX_JOBS_LISTED - 10):
        session.hold(trigger(f"t{n}"), JobPhase.RUNNING)
    assert session.free_triggers() == 0
    assert session.free_slots() == 10


def test_task_settings_are_returned_once_for_each_revision() -> None:
    session = WorkerSession(slots=1)
    assert session.next_poll(60).task_settings_revision == ""
    first, second = TaskSettings("r1", {"a.b": "1"}), TaskSettings("r2", {"a.b": "2"})
    serve = Intent(mode=IntentMode.SERVE, revision=1)
    assert session.open(serve, [], first).task_settings == first
    assert session.open(serve, [], first).task_settings is None
    assert session.open(serve, []).task_settings is None, "an older central says nothing of them"
    assert session.next_poll(60).task_settings_revision == "r1"
    actions = session.on_reply(PollReply(poll_s=30, offers=[make_offer("a")], task_settings=second))
    assert (actions.task_settings, [offer.job_id for offer in actions.take]) == (second, ["a"])
    assert session.next_poll(60).task_settings_revision == "r2"


def test_what_is_done_for_a_job_is_listed_with_it() -> None:
    session = WorkerSession(slots=4)
    lease = session.hold(make_offer("a"))
    session.set_detail(lease, "code 43 %")
    assert [job.detail for job in session.next_poll(30).jobs] == ["code 43 %"]
    session.set_detail(lease, "x" * 500)
    assert len(session.held()[0].detail) == 100
    session.set_detail(lease, "")
    assert session.held()[0].detail == ""
    session.release(lease)
    session.set_detail(lease, "late")
    assert session.held() == []


# A limit of jobs


def _limited(jobs: int | None) -> WorkerSession:
    return WorkerSession(slots=4, triggers=4, max_jobs=jobs)


def test_a_worker_with_a_limit_declines_what_is_beyond_it() -> None:
    session = _limited(1)
    actions = session.on_reply(PollReply(poll_s=30, offers=[make_offer("a"), make_offer("b")]))
    assert [offer.job_id for offer in actions.take] == ["a"]
    assert "max_jobs" in actions.decline[0][1]
    assert (session.free_slots(), session.free_triggers()) == (0, 0)


def test_a_worker_has_had_its_jobs_when_the_last_one_is_over() -> None:
    session = _limited(1)
    assert not session.has_had_its_jobs
    session.on_reply(PollReply(poll_s=30, offers=[make_offer("a")]))
    assert not session.has_had_its_jobs
    session.release(Lease("a", 1))
    assert session.has_had_its_jobs


def test_a_job_that_goes_back_does_not_count() -> None:
    session = _limited(1)
    session.on_reply(PollReply(poll_s=30, offers=[make_offer("a")]))
    session.note_declined(Lease("a", 1))
    session.note_declined(Lease("a", 1))
    session.release(Lease("a", 1))
    assert session.jobs_left == 1


def test_central_s_count_replaces_the_own_one_if_it_has_one() -> None:
    session = _limited(5)
    session.open(Intent(mode=IntentMode.SERVE, revision=1), [])
    assert session.jobs_left == 5
    session.open(Intent(mode=IntentMode.SERVE, revision=1), [], jobs_left=2)
    assert session.jobs_left == 2


def test_adopted_jobs_do_not_count_again() -> None:
    session = _limited(1)
    session.hold(make_offer("a"), JobPhase.RUNNING)
    assert session.jobs_left == 1
