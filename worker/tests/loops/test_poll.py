from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.messages import Intent, IntentMode, JobPhase, Offer, Poll, PollReply, Session, SessionRequest, Stop
from airflow_remote_worker.config import PollConfig
from airflow_remote_worker.errors import Unreachable, from_problem
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.lifecycle import EXIT_REFUSED, Lifecycle
from airflow_remote_worker.loops.poll import PollLoop
from airflow_remote_worker.session import WorkerSession

from ..conftest import HandClock, make_offer

pytestmark = pytest.mark.timeout(30)
REQUEST = SessionRequest(instance_id="i", boot_id="b", protocol="1.0", capabilities=["task"], slots=2, facts=None)  # type: ignore[arg-type]


class ParkingLink:
    """Central's side: each poll gets the next answer; without one it waits until a newer poll comes."""

    central = "https://central.example.com"

    def __init__(self, *answers: PollReply | Exception, opening: list[Exception | None] | None = None) -> None:
        self.answers = list(answers)
        self.opening = opening or []
        self.polls: list[Poll] = []
        self.sessions = 0
        self.declined: list[tuple[Lease, str]] = []
        self._newer = anyio.Event()

    async def open_session(self, request: SessionRequest) -> Session:
        if self.opening and (refusal := self.opening.pop(0)):
            raise refusal
        self.sessions += 1
        intent = Intent(mode=IntentMode.SERVE, revision=1)
        return Session("s", "w", "n", "1.0", ["task"], poll_s=20, retry_s=0.1, intent=intent)

    async def poll(self, poll: Poll) -> PollReply:
        self.polls.append(poll)
        self._newer.set()
        self._newer = anyio.Event()
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        await self._newer.wait()
        return PollReply(poll_s=20)

    async def decline(self, lease: Lease, reason: str) -> None:
        self.declined.append((lease, reason))

    async def wait_for_contact(self, at_most_s: float) -> None:
        await anyio.sleep(0)


class Keeper:
    def __init__(self, full: bool = False) -> None:
        self.taken: list[Offer] = []
        self.stopped: list[Stop] = []
        self.full = full

    def take(self, offer: Offer) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.taken.append(offer)

    def stop(self, stop: Stop) -> None:
        self.stopped.append(stop)

    def supersede(self, lease: Lease) -> None:
        raise AssertionError


async def _rest() -> None:
    await anyio.sleep(0.03)
    # Until all other tasks wait too, however late this machine wakes us.
    await anyio.wait_all_tasks_blocked()


class Bench:
    def __init__(self, link: ParkingLink, keeper: Keeper | None = None) -> None:
        self.link = link
        self.keeper = keeper or Keeper()
        self.session = WorkerSession(slots=2)
        self.lifecycle = Lifecycle()
        self.clock = HandClock()
        self.loop = PollLoop(
            link=link, session=self.session, keeper=self.keeper, lifecycle=self.lifecycle, clock=self.clock, config=PollConfig()
        )  # type: ignore[arg-type]

    def run(self, *steps: Callable[[], object]) -> None:
        """Run the loop; wait between the steps until it is idle."""

        async def main() -> None:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self.loop.run, lambda: REQUEST)
                    for step in steps:
                        await _rest()
                        step()
                    await _rest()
                    tasks.cancel_scope.cancel()

        anyio.run(main)


def test_an_offer_is_taken_and_listed_in_the_next_poll() -> None:
    bench = Bench(ParkingLink(PollReply(poll_s=20, offers=[make_offer("a")])))
    bench.run()
    assert [offer.job_id for offer in bench.keeper.taken] == ["a"]
    assert [(job.job_id, job.phase) for job in bench.link.polls[1].jobs] == [("a", JobPhase.PREPARING)]


def test_an_offer_that_can_t_be_stored_is_declined() -> None:
    bench = Bench(ParkingLink(PollReply(poll_s=20, offers=[make_offer("a")])), Keeper(full=True))
    bench.run()
    assert [lease for lease, _ in bench.link.declined] == [Lease("a", 1)]
    assert "No space left" in bench.link.declined[0][1]
    assert bench.session.is_idle


def test_one_poll_stays_open() -> None:
    bench = Bench(ParkingLink())
    bench.run()
    assert len(bench.link.polls) == 1


def test_freed_slots_cause_one_new_poll_and_the_older_reply_is_still_processed() -> None:
    bench = Bench(ParkingLink())
    bench.run(bench.loop.refresh, bench.loop.refresh)
    assert 2 <= len(bench.link.polls) <= 3


def test_an_outage_is_waited_out() -> None:
    bench = Bench(ParkingLink(*[Unreachable("away")] * 5, opening=[Unreachable("away")] * 3))
    bench.run()
    assert len(bench.link.polls) == 6
    assert bench.loop.trouble == "away"
    assert not bench.lifecycle.detaching.is_set()


def test_trouble_is_reported_when_it_begins_and_when_it_changes() -> None:
    bench = Bench(ParkingLink(*[Unreachable("away")] * 2, *[Unreachable("a login page")] * 2))
    reported: list[str] = []
    bench.loop.on_contact.append(lambda: reported.append(bench.loop.trouble))
    bench.run()
    assert reported == ["", "away", "a login page"]


def test_polls_become_shorter_after_cuts() -> None:
    """This link advances the clock as if a proxy cut the poll."""
    bench = Bench(ParkingLink())
    link, clock = bench.link, bench.clock

    async def poll(poll: Poll) -> PollReply:
        link.polls.append(poll)
        if poll.wait_s >= 10:
            clock.now += 10
            raise Unreachable("cut", was_cut=True)
        if poll.wait_s == 8:
            await anyio.sleep_forever()
        clock.now += poll.wait_s
        return PollReply(poll_s=20)

    link.poll = poll  # type: ignore[method-assign]
    bench.run()
    assert [poll.wait_s for poll in link.polls] == [20, 0, 20, 0, 8]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ProblemCode.CLONED, "copy"),
        (ProblemCode.REVOKED, "airflow-remote-worker join https://central.example.com --force"),
        (ProblemCode.OUTDATED, "update"),
    ],
)
def test_a_refusal_ends_the_daemon_with_a_reason_for_users(code: ProblemCode, reason: str) -> None:
    bench = Bench(ParkingLink(from_problem(make_problem(code, "because"))))
    bench.run()
    assert bench.lifecycle.exit_code == EXIT_REFUSED
    assert reason in bench.lifecycle.reason
    assert len(bench.link.polls) == 1


TAKEN = from_problem(make_problem(ProblemCode.SESSION_TAKEN, "because"))
CLONED = from_problem(make_problem(ProblemCode.CLONED, "because"))


def test_a_taken_or_forgotten_session_is_reopened() -> None:
    bench = Bench(ParkingLink(TAKEN))
    bench.run()
    assert (bench.link.sessions, len(bench.link.polls)) == (2, 2)
    assert not bench.lifecycle.detaching.is_set() and not bench.loop.trouble
    assert bench.loop._clock.naps == []  # type: ignore[attr-defined]


def test_sessions_are_not_reopened_repeatedly_without_a_pause() -> None:
    bench = Bench(ParkingLink(TAKEN, TAKEN, TAKEN))
    bench.run()
    assert bench.link.sessions == 4
    assert len([nap for nap in bench.loop._clock.naps if nap >= 10]) == 2  # type: ignore[attr-defined]


def test_a_copy_is_refused_a_new_session_and_ends() -> None:
    bench = Bench(ParkingLink(TAKEN, opening=[None, CLONED]))
    bench.run()
    assert bench.lifecycle.exit_code == EXIT_REFUSED
    assert "this one is the copy" in bench.lifecycle.reason


def test_the_intent_to_leave_drains_the_worker() -> None:
    bench = Bench(ParkingLink(PollReply(poll_s=20, intent=Intent(mode=IntentMode.LEAVE, revision=2))))
    bench.run()
    assert bench.lifecycle.draining.is_set()
    assert bench.link.polls[-1].free_slots == 0


def test_central_may_ask_for_a_pause() -> None:
    bench = Bench(ParkingLink(PollReply(poll_s=20, pause_s=7)))
    bench.run()
    assert any(nap >= 7 for nap in bench.loop._clock.naps)  # type: ignore[attr-defined]


def test_the_first_poll_after_trouble_does_not_wait() -> None:
    bench = Bench(ParkingLink(PollReply(poll_s=20), Unreachable("no route"), PollReply(poll_s=20)))
    bench.run()
    assert [poll.wait_s for poll in bench.link.polls] == [20, 20, 0, 20]
