"""The keeper's decisions, with stubs for the hosts, central and the loops."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import msgspec
import pytest
from airflow_remote_protocol.messages import (
    Decline,
    EventKind,
    JobKind,
    JobPhase,
    Offer,
    Outcome,
    Report,
    Stop,
    StopReason,
    TriggerEvent,
)
from airflow_remote_worker.config import BundleConfig, Config
from airflow_remote_worker.errors import Superseded, Unreachable
from airflow_remote_worker.jobs.process import CannotHost
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.local import job_files
from airflow_remote_worker.session import WorkerSession
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.triggers.host import HostedCode, TriggerHost
from airflow_remote_worker.triggers.hosts import TooManyHosts
from airflow_remote_worker.triggers.keeper import CentralPort, TriggerKeeper
from airflow_remote_worker.triggers.spool import TriggerSpool
from airflow_remote_worker.triggers.trigger import Stage, Trigger

from ..conftest import HandClock, make_offer

LEASE = Lease("11111111-0000", 1)
FIRED = b'{"kind":"fired","payload":{"a":1}}'


class Bench:
    """A keeper, and a record of its calls."""

    def __init__(self, state: State, clock: HandClock, root: Path) -> None:
        self.said: list[str] = []
        self.accept_errors: list[Exception] = []
        self.reserve_error: Exception | None = None
        self.spool = TriggerSpool(state.triggers, quarantine=state.quarantine)
        self.session = WorkerSession(slots=4, triggers=10)
        bundle = root / "dags"
        bundle.mkdir(exist_ok=True)
        (bundle / "a_dag.py").write_text("")
        config = Config(state=state.root, bundles={"dags-folder": BundleConfig(path=bundle)})
        site = Site(config, "w1", state.root / "s", state.contact_path)
        self.hosts = self
        self.keeper = TriggerKeeper(
            site=site,
            spool=self.spool,
            session=self.session,
            hosts=self,
            central=CentralPort(accept=self._accept, wait=self._wait),
            clock=clock,
        )
        self.keeper.conversation = self
        self.keeper.report_end = lambda trigger: self.said.append("report_end")
        self.keeper.flush = lambda trigger: self.said.append("flush")
        self.host = TriggerHost(root, job_files.HostSpec("h", "k", "", "", "", ""), None, 0.0, completes_logs=True)  # type: ignore[arg-type]

    # Hosts

    async def reserve(self, trigger: Trigger, code: HostedCode) -> TriggerHost:
        if self.reserve_error:
            raise self.reserve_error
        self.claim(trigger, self.host)
        return self.host

    def release(self, trigger: Trigger) -> None:
        trigger.host = None
        self.host.triggers.pop(trigger.lease, None)

    def claim(self, trigger: Trigger, host: TriggerHost) -> None:
        trigger.host, trigger.host_id = host, host.spec.host_id
        host.triggers[trigger.lease] = trigger

    async def wait_until_settled(self, within_s: float) -> None:
        await anyio.sleep(0)

    # Conversation

    def start(self, trigger: Trigger) -> None:
        self.said.append("start")
        assert self.keeper.order(trigger)

    def cancel(self, trigger: Trigger) -> None:
        self.said.append(f"cancel on_kill={trigger.runs_on_kill}")

    def acknowledge(self, trigger: Trigger) -> None:
        self.said.append("acknowledge")

    # Central

    async def _accept(self, lease: Lease) -> None:
        self.said.append("accept")
        if self.accept_errors:
            raise self.accept_errors.pop(0)

    async def _wait(self, seconds: float) -> None:
        self.said.append("wait")
        await anyio.sleep(0)

    @property
    def trigger(self) -> Trigger:
        return self.keeper.triggers[LEASE]

    def phases(self) -> list[JobPhase]:
        return [held.phase for held in self.session.held()]

    async def until(self, stage: Stage) -> None:
        with anyio.fail_after(60):
            while self.trigger.stage is not stage:
                await anyio.sleep(0.01)

    async def hosted(self) -> None:
        self.keeper.take(offer())
        await self.until(Stage.HOSTED)
        self.said.clear()


def offer(**more: Any) -> Offer:
    workload = {"ti": {"id": "ti"}, "classpath": "a.B", "kwargs": {}, "dag_rel_path": "a_dag.py"}
    workload["bundle"] = {"name": "dags-folder", "version": None}
    return make_offer(*LEASE, kind=JobKind.TRIGGER, workload=msgspec.Raw(json.dumps(workload | more).encode()))


def stop(reason: StopReason) -> Stop:
    return Stop(job_id=LEASE.job_id, epoch=LEASE.epoch, reason=reason)


Story = Callable[[Bench], Awaitable[None]]


@pytest.fixture
def run(state: State, clock: HandClock, tmp_path: Path) -> Callable[[Story], Bench]:
    """Run a story with a running keeper."""

    def run(story: Story) -> Bench:
        bench = Bench(state, clock, tmp_path)

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                bench.keeper._tasks = tasks  # without its loop, which would sleep on the test's manual clock
                await story(bench)
                tasks.cancel_scope.cancel()

        anyio.run(main)
        return bench

    return run


def test_an_offer_is_stored_accepted_and_started(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.keeper.take(offer())
        assert bench.phases() == [JobPhase.PREPARING]
        await bench.until(Stage.HOSTED)
        assert bench.said == ["accept", "start"]
        assert bench.phases() == [JobPhase.RUNNING]
        assert bench.session.free_slots() == 4
        assert bench.session.free_triggers() == 9

    run(story)


def test_an_offer_is_accepted_after_an_outage(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.accept_errors = [Unreachable("away"), Unreachable("away")]
        await bench.hosted()

    run(story)


def test_an_offer_that_is_not_ours_any_more_is_dropped(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.accept_errors = [Superseded("gone")]
        bench.keeper.take(offer())
        await bench.until(Stage.ENDED)
        assert bench.trigger.ending is None
        bench.keeper.flushed(bench.trigger)
        assert not bench.keeper.triggers
        assert bench.session.is_idle
        assert not list(bench.spool)

    run(story)


@pytest.mark.parametrize(
    ("error", "kind"), [(CannotHost("no runtime"), Report), (TooManyHosts("32 hosts"), Decline), (TimeoutError(), Report)]
)
def test_a_failed_start_is_reported_after_the_log(run: Callable[[Story], Bench], error: Exception, kind: type) -> None:
    async def story(bench: Bench) -> None:
        bench.reserve_error = error
        bench.keeper.take(offer())
        await bench.until(Stage.ENDED)
        assert bench.said == ["flush"]
        bench.keeper.flushed(bench.trigger)
        assert bench.said == ["flush", "report_end"]
        assert isinstance(bench.trigger.ending, kind)

    run(story)


def test_an_unknown_bundle_is_unprepared_and_the_log_names_the_remedy(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.keeper.take(offer(bundle={"name": "elsewhere", "version": None}))
        await bench.until(Stage.ENDED)
        assert isinstance(bench.trigger.ending, Report)
        assert bench.trigger.ending.outcome is Outcome.UNPREPARED
        assert b"bundles.elsewhere.path" in bench.trigger.log.read_piece()

    run(story)


def test_an_event_is_on_disk_before_its_host_may_forget_it(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        assert bench.keeper.take_event(LEASE, FIRED)
        stored = bench.trigger.dir.event()
        assert stored is not None
        assert bytes(stored.payload) == b'{"a":1}'
        assert bench.said == ["report_end"]
        assert bench.phases() == [JobPhase.ENDED]
        assert bench.session.free_triggers() == 10
        bench.keeper.note_delivered(bench.trigger)
        assert bench.said == ["report_end", "flush"]
        bench.keeper.flushed(bench.trigger)
        assert bench.session.is_idle

    run(story)


def test_a_full_disk_keeps_the_event_with_its_host_until_central_has_it(
    run: Callable[[Story], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()

        def full(self: object, event: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("airflow_remote_worker.triggers.spool.TriggerDir.store_event", full)
        assert not bench.keeper.take_event(LEASE, FIRED)
        assert not bench.keeper.take_event(LEASE, FIRED)  # after a reconnect
        assert bench.keeper.claim(bench.trigger, bench.host)
        assert bench.said == ["report_end"]
        bench.keeper.note_delivered(bench.trigger)
        assert "acknowledge" in bench.said

    run(story)


def test_an_event_that_the_protocol_does_not_allow_fails_the_wait(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        assert bench.keeper.take_event(LEASE, b'{"kind":"fired","traceback":7}')
        assert isinstance(bench.trigger.ending, TriggerEvent)
        assert bench.trigger.ending.kind is EventKind.FAILED

    run(story)


@pytest.mark.parametrize("reason", list(StopReason))
def test_on_kill_runs_only_if_a_user_acted(run: Callable[[Story], Bench], reason: StopReason) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.keeper.stop(stop(reason))
        by_user = reason in (StopReason.ENDED, StopReason.CLEARED, StopReason.GONE)
        assert bench.said == [f"cancel on_kill={by_user}"]
        assert bench.phases() == [JobPhase.STOPPING]
        bench.keeper.take_cancelled(LEASE)
        assert bench.trigger.ending is None
        bench.keeper.flushed(bench.trigger)
        assert bench.session.is_idle

    run(story)


def test_an_event_after_a_stop_is_dropped(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.keeper.stop(stop(StopReason.ENDED))
        assert bench.keeper.take_event(LEASE, FIRED)
        assert bench.trigger.ending is None
        assert bench.trigger.dir.event() is None

    run(story)


def test_an_event_before_the_end_of_a_drain_is_delivered(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.keeper.hand_back_all("draining")
        assert bench.said == ["cancel on_kill=False"]
        assert bench.keeper.take_event(LEASE, FIRED)
        assert isinstance(bench.trigger.ending, TriggerEvent)

    run(story)


def test_a_drain_hands_back_running_and_starting_triggers(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.keeper.hand_back_all("draining")
        bench.keeper.take_cancelled(LEASE)
        assert bench.trigger.ending == Decline(reason="draining")

    run(story)

    async def another(bench: Bench) -> None:
        bench.spool.of(LEASE).remove()
        bench.keeper.take(offer())
        await anyio.sleep(0)
        bench.keeper.hand_back_all("draining")
        await bench.until(Stage.ENDED)
        assert bench.trigger.ending == Decline(reason="draining")
        assert "start" not in bench.said

    run(another)


def test_the_triggers_of_a_dead_host_are_handed_back_with_the_reason_that_central_counts(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.release(bench.trigger)
        bench.keeper.host_died(bench.host, [bench.trigger], "it was killed")
        assert isinstance(bench.trigger.ending, Decline)
        assert bench.trigger.ending.reason.startswith("host-died: ")
        assert b"it was killed" in bench.trigger.log.read_piece()

    run(story)


def test_a_trigger_without_contact_is_stopped_by_the_worker_itself(run: Callable[[Story], Bench], clock: HandClock) -> None:
    async def story(bench: Bench) -> None:
        bench.session.note_contact(clock.now)
        await bench.hosted()
        bench.keeper._stop_without_contact()
        assert bench.said == []
        clock.now += 3001
        bench.keeper._stop_without_contact()
        assert bench.said == ["cancel on_kill=False"]

    run(story)


def test_triggers_of_an_earlier_daemon_are_adopted(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.spool.of(LEASE).store_offer(offer())
        bench.keeper.adopt()
        assert bench.trigger.stage is Stage.ADOPTED
        assert bench.phases() == [JobPhase.PREPARING]
        assert bench.keeper.claim(bench.trigger, bench.host)
        assert (bench.trigger.stage, bench.phases()) == (Stage.HOSTED, [JobPhase.RUNNING])
        await anyio.sleep(0.05)
        assert bench.said == []

    run(story)


def test_triggers_that_no_adopted_host_runs_start_again(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.spool.of(LEASE).store_offer(offer())
        bench.keeper.adopt()
        await bench.until(Stage.HOSTED)
        assert bench.said == ["accept", "start"]

    run(story)


def test_a_stored_event_is_reported_by_the_next_daemon(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        stored = bench.spool.of(LEASE)
        stored.store_offer(offer())
        stored.store_event(TriggerEvent(kind=EventKind.FIRED))
        bench.keeper.adopt()
        assert bench.said == ["report_end"]
        assert bench.phases() == [JobPhase.ENDED]
        assert not bench.keeper.claim(bench.trigger, bench.host), "its host may forget it"

    run(story)


def test_damaged_notes_go_to_quarantine_and_the_trigger_is_not_listed(run: Callable[[Story], Bench], state: State) -> None:
    async def story(bench: Bench) -> None:
        stored = bench.spool.of(LEASE)
        stored.store_offer(offer())
        (stored.path / "offer.json").write_bytes(b'{"job_id": "other"')
        bench.keeper.adopt()
        assert not bench.keeper.triggers
        assert bench.session.is_idle
        assert len(list(state.quarantine.iterdir())) == 1

    run(story)


def test_a_stop_before_the_adopted_host_connects_runs_on_kill_later(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.spool.of(LEASE).store_offer(offer())
        bench.keeper.adopt()
        bench.keeper.stop(stop(StopReason.ENDED))
        assert bench.keeper.claim(bench.trigger, bench.host)
        assert (bench.trigger.stage, bench.trigger.runs_on_kill) == (Stage.CANCELLING, True)

    run(story)


def test_a_late_notice_of_the_end_does_not_lose_the_rest_of_the_log(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.keeper.take_lines(LEASE, b"trigger completed\n")
        bench.keeper.take_event(LEASE, FIRED)
        # A poll that was open when the event arrived lists it as running; central answers that its lease is over.
        bench.keeper.supersede(LEASE)
        bench.keeper.note_delivered(bench.trigger)
        assert bench.said == ["report_end", "flush"]

    run(story)


def test_the_log_of_a_fired_trigger_is_open_until_its_host_completes_it(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.keeper.log_grew = lambda trigger: bench.said.append("log_grew")
        bench.keeper.take_event(LEASE, FIRED)
        assert bench.trigger.log_is_open
        bench.keeper.reconcile_logs(bench.host, {LEASE})  # it has reconnected
        assert bench.trigger.log_is_open
        bench.keeper.complete_log(bench.trigger)
        assert not bench.trigger.log_is_open
        assert bench.said == ["report_end", "log_grew"]

    run(story)


def test_a_host_that_does_not_complete_logs_leaves_none_open(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.host.completes_logs = False
        await bench.hosted()
        bench.keeper.take_event(LEASE, FIRED)
        assert not bench.trigger.log_is_open

    run(story)


@pytest.mark.parametrize("end", ["reconnects without it", "dies"])
def test_a_log_is_complete_if_its_host_has_no_more_of_it(run: Callable[[Story], Bench], end: str) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.keeper.take_event(LEASE, FIRED)
        if end == "dies":
            bench.keeper.host_died(bench.host, [], "it was killed")
        else:
            bench.keeper.reconcile_logs(bench.host, set())
        assert not bench.trigger.log_is_open

    run(story)


def test_a_dead_host_s_triggers_are_handed_back_without_waiting_for_their_logs(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.release(bench.trigger)
        bench.keeper.host_died(bench.host, [bench.trigger], "it was killed")
        assert not bench.trigger.log_is_open
        assert isinstance(bench.trigger.ending, Decline)

    run(story)


def test_code_that_ignores_its_end_keeps_a_log_open_for_a_minute_at_most(run: Callable[[Story], Bench], clock: HandClock) -> None:
    async def story(bench: Bench) -> None:
        await bench.hosted()
        bench.keeper.take_event(LEASE, FIRED)
        clock.now += 60
        bench.keeper._complete_overdue_logs()
        assert bench.trigger.log_is_open
        clock.now += 1
        bench.keeper._complete_overdue_logs()
        assert not bench.trigger.log_is_open

    run(story)


@pytest.mark.parametrize("has_more", [True, False])
def test_after_a_restart_the_host_of_a_fired_trigger_continues_its_log(run: Callable[[Story], Bench], has_more: bool) -> None:
    async def story(bench: Bench) -> None:
        stored = bench.spool.of(LEASE)
        stored.store_offer(offer())
        stored.store_event(TriggerEvent(kind=EventKind.FIRED))
        bench.keeper.adopt()
        assert bench.trigger.log_is_open
        bench.keeper.reconcile_logs(bench.host, {LEASE} if has_more else ())
        with anyio.fail_after(60):
            while bench.trigger.log_is_open and not has_more:
                await anyio.sleep(0.01)
        assert (bench.trigger.log_is_open, bench.trigger.host_id) == ((True, "h") if has_more else (False, ""))

    run(story)
