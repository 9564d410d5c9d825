"""The credential is replaced in time and stored before it is used, and lost messages do no harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import msgspec
import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Enrolment, Intent, IntentMode, Session
from airflow_remote_protocol.states import ENDED
from airflow_remote_protocol.version import PROTOCOL_VERSION
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.errors import Unreachable, Withheld
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.network import Network
from airflow_remote_worker.loops.rotate import RotateLoop
from airflow_remote_worker.state.directory import Membership, State
from airflow_remote_worker.testing.fake_central import FakeCentral, Timing

from ..conftest import HandClock, RunningWorker, eventually


class Joined:
    """A joined worker that has only its link and this loop."""

    def __init__(self, central: FakeCentral, state: State) -> None:
        self.central = central
        self.state = state
        self.clock = SystemClock()

    async def join(self) -> None:
        token = self.central.enrolment_token(["q"])
        link = Link(Network(central=self.central.url), credential=token, clock=self.clock)
        got = await link.enrol(Enrolment(name="w"))
        await link.close()
        self.first = got.credential
        self.state.join(Membership(central=self.central.url, worker_id=got.worker_id, name="w", credential=got.credential))

    def start(self, store: Callable[[str, str | None], None] | None = None) -> RotateLoop:
        """Start as a daemon would, with the credentials on disk."""
        membership = self.state.membership()
        self.link = Link(
            Network(central=self.central.url), credential=membership.credential, previous=membership.previous, clock=self.clock
        )
        stores = store or (lambda new, old: self.state.replace_credential(new, previous=old))
        self.loop = RotateLoop(self.link, self.clock, stores)
        self.link.on_fallback = self.loop.rotate_now
        return self.loop


def _run(central: FakeCentral, state: State, story: Callable[[Joined], object]) -> None:
    async def run() -> None:
        joined = Joined(central, state)
        await joined.join()
        try:
            await story(joined)  # type: ignore[misc]
        finally:
            await joined.link.close()

    anyio.run(run)


def _session(**fields: object) -> Session:
    given = {"intent": Intent(mode=IntentMode.SERVE, revision=1), **fields}
    return Session("s", "i", "w", PROTOCOL_VERSION, [], 1.0, 1.0, **given)  # type: ignore[arg-type]


@pytest.fixture
def central() -> Iterator[FakeCentral]:
    with FakeCentral() as central:
        yield central


def test_a_new_credential_is_stored_used_and_proven(central: FakeCentral, state: State) -> None:
    async def story(joined: Joined) -> None:
        await joined.start()._replace()
        stored = state.membership()
        assert stored.credential not in (joined.first, "") and stored.previous is None
        central.pass_handover("w")
        await joined.link.ping()

    _run(central, state, story)
    assert not central.is_flagged("w")


def test_a_lost_answer_is_requested_again(central: FakeCentral, state: State) -> None:
    async def story(joined: Joined) -> None:
        loop = joined.start()
        for _ in range(2):  # the link repeats a call once if its connection was cut
            central.drop_next_reply("credential")
        with pytest.raises(Unreachable):
            await loop._replace()
        assert state.membership().credential == joined.first
        await loop._replace()
        assert state.membership().credential != joined.first

    _run(central, state, story)


def test_a_credential_that_can_t_be_stored_is_not_used(central: FakeCentral, state: State) -> None:
    def full(new: str, old: str | None) -> None:
        raise OSError(28, "no space left on device")

    async def story(joined: Joined) -> None:
        with pytest.raises(OSError, match="no space"):
            await joined.start(full)._replace()
        await joined.link.ping()
        await joined.start()._replace()

    _run(central, state, story)
    assert state.membership().credential


def test_a_daemon_that_died_before_the_first_use_starts_with_the_new_one(central: FakeCentral, state: State) -> None:
    async def story(joined: Joined) -> None:
        joined.start()
        got = await joined.link.next_credential()
        state.replace_credential(got.credential, previous=joined.first)
        joined.start()
        await joined.link.ping()
        assert joined.link.credential == got.credential

    _run(central, state, story)


def test_an_unknown_credential_is_replaced_by_the_previous_one_and_requested_again(central: FakeCentral, state: State) -> None:
    async def story(joined: Joined) -> None:
        joined.start()
        got = await joined.link.next_credential()
        state.replace_credential(got.credential, previous=joined.first)
        central.forget_next_credential("w")
        loop = joined.start()
        with pytest.raises(Unreachable, match="changed during the request"):
            await joined.link.ping()
        await joined.link.ping()
        assert joined.link.credential == joined.first
        with anyio.fail_after(60):
            await loop._until_due()
        await loop._replace()
        assert state.membership().credential not in (joined.first, got.credential)

    _run(central, state, story)


def test_without_a_previous_credential_an_expired_one_is_final(central: FakeCentral, state: State) -> None:
    async def story(joined: Joined) -> None:
        joined.start()
        central.expire_credential("w")
        with pytest.raises(Withheld) as withheld:
            await joined.link.ping()
        assert withheld.value.code is ProblemCode.EXPIRED

    _run(central, state, story)


@pytest.mark.parametrize(("chance", "part"), [(0.0, 0.7), (0.5, 0.8), (1.0, 0.9)])
def test_a_replacement_is_due_between_70_and_90_percent_of_the_life(clock: HandClock, chance: float, part: float) -> None:
    clock.chance = lambda: chance  # type: ignore[method-assign]
    loop = RotateLoop(None, clock, lambda new, old: None)  # type: ignore[arg-type]
    loop.on_session(_session(credential_life_s=1000.0, credential_age_s=100.0))
    assert loop._due == pytest.approx(clock.now + 1000 * part - 100)


@pytest.mark.parametrize(("age_s", "in_s"), [(90000.0, 300.0), (80000.0, 300.0), (86300.0, 25.0)])
def test_overdue_replacements_are_spread_but_never_beyond_the_expiry(clock: HandClock, age_s: float, in_s: float) -> None:
    loop = RotateLoop(None, clock, lambda new, old: None)  # type: ignore[arg-type]
    loop.on_session(_session(credential_life_s=86400.0, credential_age_s=age_s))
    assert loop._due == pytest.approx(clock.now + in_s)


def test_a_credential_without_expiry_is_replaced_only_on_request(clock: HandClock) -> None:
    loop = RotateLoop(None, clock, lambda new, old: None)  # type: ignore[arg-type]
    loop.on_session(_session())
    assert loop._due is None
    loop.on_intent(Intent(mode=IntentMode.SERVE, revision=2, rotate=True))
    assert loop._due == clock.now


def test_a_daemon_replaces_its_credential_when_it_is_due(worker: RunningWorker, tmp_path: Path) -> None:
    """Repeatedly, with and without jobs; no worker is flagged."""
    # Long enough that no credential ends while a busy machine lets the daemon wait.
    with FakeCentral(timing=Timing(credential_s=8.0)) as central:
        worker.central, worker.config = central, msgspec.structs.replace(worker.config, central=central.url)
        worker.join()
        first = worker.state.membership().credential
        worker.start()
        second = eventually(lambda: (now := worker.state.membership().credential) != first and now, 60)
        eventually(lambda: worker.state.membership().credential not in (first, second), 60)
        job = worker.enqueue("run\nlog hello\nexit 0")
        central.wait_for_state(job, *ENDED)
        assert not central.is_flagged("w1")
        worker.detach()


def test_a_daemon_receives_the_request(worker: RunningWorker, central: FakeCentral) -> None:
    worker.start()
    first = worker.state.membership().credential
    eventually(lambda: central.worker("w1").session_id)
    central.ask_to_rotate("w1")
    eventually(lambda: worker.state.membership().credential != first)
    eventually(lambda: not central.worker("w1").intent.rotate)


def test_a_daemon_survives_a_wrong_clock_of_central_that_expires_its_credential(
    worker: RunningWorker, central: FakeCentral
) -> None:
    worker.start()
    eventually(lambda: central.worker("w1").session_id)
    life = central.worker("w1").expires_at
    central.expire_credential("w1")
    status = worker.state.status_path
    eventually(lambda: status.exists() and b"expired" in status.read_bytes(), timeout_s=40)
    central.worker("w1").expires_at = life
    job = worker.enqueue("run\nlog hello\nexit 0")
    central.wait_for_state(job, *ENDED, timeout_s=40)


def test_a_suspended_daemon_waits_and_continues(worker: RunningWorker, central: FakeCentral) -> None:
    worker.start()
    eventually(lambda: central.worker("w1").session_id)
    central.suspend_worker("w1")
    status = worker.state.status_path
    eventually(lambda: status.exists() and b"suspended" in status.read_bytes())
    central.unsuspend_worker("w1")
    job = worker.enqueue("run\nlog hello\nexit 0")
    central.wait_for_state(job, *ENDED)
