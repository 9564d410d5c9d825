"""Topic suite, promises 1 and 3: six sites lose central at the same time, each in another way.

The outage is longer than Airflow's heartbeat timeout. All tests share it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from e2e.faults.conftest import HEARTBEAT_TIMEOUT_S, RETRY_CEILING_S, SiteNamed
from testkit.durable_run import DurableRun
from testkit.network.fault_proxy import PAGES, FaultProxy
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.site import Site

OUTAGE_S = HEARTBEAT_TIMEOUT_S + 11
"""Central can write a worker's last contact up to 10 s late, and the contact then counts from that time."""
LOOKED_AT_AFTER_S = OUTAGE_S - 5
"""When the workers' presence is read: by a command, which takes seconds to start."""
RECONNECTED_WITHIN_S = RETRY_CEILING_S + 10.0
"""One step of the back-off, plus the delay of a busy computer."""
HUNG_REQUEST_S = 15
"""How long the worker waits for a swallowed request after the first request has failed."""
STOPPED_WITHIN_S = 15.0
"""From the worker's reconnection to the end of the task's processes, on a busy computer."""


def _pages(network: FaultProxy, seconds: float) -> None:
    """Answer with each page of load balancers, proxies and hot spots in turn."""
    for page in PAGES.values():
        network.answer(page)
        time.sleep(seconds / len(PAGES))


def _half_open(network: FaultProxy, seconds: float) -> None:
    """First lose central's replies, then the worker's requests."""
    network.half_open("replies")
    time.sleep(seconds / 2)
    network.half_open("requests")
    time.sleep(seconds / 2)


def _throughout(act: Callable[[FaultProxy], None]) -> Callable[[FaultProxy, float], None]:
    def outage(network: FaultProxy, seconds: float) -> None:
        act(network)
        time.sleep(seconds)

    return outage


OUTAGES: dict[str, Callable[[FaultProxy, float], None]] = {
    "refused": _throughout(FaultProxy.refuse),
    "reset": _throughout(FaultProxy.reset),
    "pages": _pages,
    "dark": _throughout(FaultProxy.black_hole),
    "deaf": _half_open,
    "slow": _throughout(lambda network: network.slow(latency_s=1, bytes_per_s=4_000)),
}
OUT_OF_REACH = tuple(name for name in OUTAGES if name != "slow")
WITH_HUNG_REQUESTS = ("dark", "deaf")
"""The workers that detect a lost request only by its timeout."""
ENDING = ("reset", "pages")
"""The sites whose tasks end before the outage does, so that their results wait as well. (A request that a black hole swallows at
its very end is repeated after its timeout of 30 s, which would take too long for this test.)"""
ACTIONS: dict[str, Callable[[Airflow, DurableRun], None]] = {
    "refused": lambda central, run: central.set_task_state(run.dag_id, run.run_id, "linger", "failed"),
    "reset": lambda central, run: central.clear_task(run.dag_id, run.run_id, "linger"),
    "pages": lambda central, run: central.set_task_state(run.dag_id, run.run_id, "linger", "success"),
}
"""The user's action on the task `linger` of a site during the outage: kill it, clear it, mark it as a success."""


@dataclass
class SiteInOutage:
    """The observations of one site."""

    site: Site
    durable_run: DurableRun
    daemon: int
    """Its daemon's pid before the outage."""
    trouble: str = ""
    """The trouble that the worker reported during the outage."""
    lines_before: int = 0
    lines_after: int = 0
    was_alive: bool = False
    presence: str = ""
    """Its presence on central at the end of the outage."""
    reconnected_s: float = 0
    stoppable: DurableRun | None = None
    pids: tuple[int, ...] = ()
    stopped_s: float = 0
    """From the reconnection to the end of the processes of the task that a user stopped during the outage."""


@pytest.fixture(scope="module")
def outage(impatient: Airflow, site_named: SiteNamed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteInOutage]:
    home = tmp_path_factory.mktemp("outage")
    sites = {name: site_named(name) for name in OUTAGES}
    seen = {
        name: SiteInOutage(site, DurableRun.begin(site, home / name, wait=False), site.worker.pid) for name, site in sites.items()
    }
    for name in ACTIONS:
        seen[name].stoppable = _stoppable(seen[name].site, home / f"{name}-stoppable")
    for one in seen.values():
        one.durable_run.wait_until_it_runs()
        if one.stoppable:
            one.pids = _pids_of(one.stoppable)
        one.lines_before = len(one.durable_run.lines())

    with ThreadPoolExecutor(len(seen)) as conditions:
        storms = [conditions.submit(OUTAGES[name], one.site.network, OUTAGE_S) for name, one in seen.items()]
        begin = time.monotonic()
        for name, act in ACTIONS.items():
            act(impatient, seen[name].stoppable)  # type: ignore[arg-type]
        time.sleep(begin + LOOKED_AT_AFTER_S - time.monotonic())
        presence = {row["name"]: row["presence"] for row in impatient.remote_cli("workers", "list")}
        for name, one in seen.items():
            status = one.site.status()
            one.presence, one.trouble = presence[name], str(status["trouble"])
            one.was_alive = one.durable_run.is_alive() and one.site.worker.is_running()
            one.lines_after = len(one.durable_run.lines())
            if name in ENDING:
                one.durable_run.release()
        for each in storms:
            each.result()
        waits = [conditions.submit(_return, one) for one in seen.values()]
        for each in waits:
            each.result()
    for one in seen.values():
        one.durable_run.release()
    return seen


def _return(one: SiteInOutage) -> None:
    """Heal the network; measure the times until the worker is connected and has stopped its task."""
    one.site.network.heal()
    begin = time.monotonic()
    wait_until(one.site.is_connected, timeout_s=60, what=f"{one.site.name} is connected", every_s=0.05)
    one.reconnected_s = time.monotonic() - begin
    if one.stoppable:
        wait_until(lambda: not _left(one.pids), timeout_s=30, what=f"{one.site.name} has stopped its task", every_s=0.05)
        one.stopped_s = time.monotonic() - begin - one.reconnected_s


def _stoppable(site: Site, directory: Path) -> DurableRun:
    directory.mkdir()
    dag_id = f"stoppable_{site.name}"
    return DurableRun(site, dag_id, site.central.trigger(dag_id, {"directory": str(directory)}), directory)


def _pids_of(stoppable: DurableRun) -> tuple[int, ...]:
    noted = stoppable.directory / "pids"
    wait_until(noted.exists, timeout_s=60, what=f"the task of {stoppable.dag_id} runs")
    return tuple(int(pid) for pid in noted.read_text().split())


def _left(pids: tuple[int, ...]) -> list[int]:
    def lives(pid: int) -> bool:
        try:
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return [pid for pid in pids if lives(pid)]


@pytest.mark.parametrize("name", OUTAGES)
def test_running_tasks_continue_during_an_outage(outage: dict[str, SiteInOutage], name: str) -> None:
    """1. Central unreachable for any time below `lost_after`: running tasks continue; the worker never exits by itself."""
    one = outage[name]
    assert one.was_alive
    assert one.lines_after - one.lines_before > LOOKED_AT_AFTER_S / 0.2 / 2, "it printed too few lines during the outage"
    assert one.site.worker.pid == one.daemon
    assert one.site.worker.is_running()


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_the_worker_reports_that_central_is_unreachable(outage: dict[str, SiteInOutage], name: str) -> None:
    """1. The worker reports the error that it gets."""
    assert outage[name].trouble


@pytest.mark.parametrize("name", OUTAGES)
def test_everything_arrives_afterwards_exactly_once(outage: dict[str, SiteInOutage], name: str) -> None:
    """1. Logs, XCom pushes, rendered fields, terminal states and reports arrive afterwards exactly once."""
    outage[name].durable_run.assert_nothing_is_lost_or_doubled()


@pytest.mark.parametrize("name", OUTAGES)
def test_the_worker_reconnects_within_one_step_of_its_back_off(outage: dict[str, SiteInOutage], name: str) -> None:
    """1. The worker reconnects within one jittered back-off step of central's return."""
    took = outage[name].reconnected_s
    print(f"{name}: reconnected after {took:.1f} s")
    assert took < RECONNECTED_WITHIN_S + (HUNG_REQUEST_S if name in WITH_HUNG_REQUESTS else 0)


@pytest.mark.parametrize("name", OUTAGES)
def test_central_shows_the_worker_as_silent_and_refreshes_its_heartbeats(outage: dict[str, SiteInOutage], name: str) -> None:
    """1. Central shows the worker as *silent* and refreshes its heartbeats; the scheduler neither fails nor re-queues its tasks.

    The outage is longer than Airflow's heartbeat timeout. (A worker on a slow line is not silent, nor is one that only does not
    receive the replies: central still receives its requests.)
    """
    one = outage[name]
    assert one.presence == ("online" if name == "slow" else "silent") or name == "deaf"
    for task in ("speak", "push"):
        assert one.site.central.task_instance(one.durable_run.dag_id, one.durable_run.run_id, task)["try_number"] == 1


@pytest.mark.parametrize(("name", "ends", "tries"), [("refused", "failed", 1), ("reset", "success", 2), ("pages", "success", 1)])
def test_a_users_action_during_the_outage_takes_precedence(
    outage: dict[str, SiteInOutage], name: str, ends: str, tries: int
) -> None:
    """3. A user's kill, clear or mark during the outage takes precedence: the reconnected worker stops the job."""
    one = outage[name]
    print(f"{name}: stopped {one.stopped_s:.2f} s after the reconnection")
    assert one.stopped_s < STOPPED_WITHIN_S
    run = one.stoppable
    assert run is not None
    assert one.site.central.wait_for_run(run.dag_id, run.run_id) == ends
    now = one.site.central.task_instance(run.dag_id, run.run_id, "linger")
    assert (now["state"], now["try_number"]) == (ends, tries)
    wait_until(lambda: all(job["ended_at"] for job in run.jobs()), timeout_s=20, what="its jobs have ended")
    assert [job["state"] for job in run.jobs()] == ["revoked", "succeeded"][: len(run.jobs())]
    assert len(run.jobs()) == tries
