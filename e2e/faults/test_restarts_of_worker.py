"""Topic suite, promise 4: the daemon is killed or restarted at the worst moments, without any effect on the jobs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from e2e.faults.conftest import SiteNamed
from testkit.durable_run import DurableRun
from testkit.network.fault_proxy import PAGES
from testkit.processes import wait_until
from testkit.site import Site


@pytest.fixture
def site(site_named: SiteNamed) -> Iterator[Site]:
    site = site_named("reset")
    wait_until(site.is_connected, timeout_s=30, what="the worker serves")
    wait_until(lambda: site.status()["runtime"], timeout_s=30, what="its runtime is ready")
    yield site
    site.network.forget_rules()
    site.network.heal()


def test_killed_while_tasks_run_and_logs_are_shipped(site: Site, tmp_path: Path) -> None:
    """4. `kill -9` at any moment: tasks keep their pid; the new daemon adopts them, serves their calls and ships their logs."""
    quiet = DurableRun.begin(site, tmp_path / "quiet")
    # The network is too slow for its log: some of it is always in transit.
    loud = DurableRun.begin(site, tmp_path / "loud", every_s=0.02, ballast=20_000)
    site.network.slow(bytes_per_s=40_000)
    for _ in range(3):
        sent = site.network.count("POST", "/log[?]")
        wait_until(lambda sent=sent: site.network.count("POST", "/log[?]") > sent, timeout_s=20, what="a chunk is in transit")
        site.worker.kill()
        assert quiet.makes_progress() and loud.makes_progress()
        site.worker.start(wait=False)
        wait_until(site.is_connected, timeout_s=30, what="the new daemon serves")
        assert quiet.is_alive() and loud.is_alive()
        assert {job["phase"] for job in site.status()["jobs"]} == {"running"}
    site.network.heal()
    loud.assert_nothing_is_lost_or_doubled()
    quiet.assert_nothing_is_lost_or_doubled()


def test_killed_while_it_prepares_a_job(site: Site, tmp_path: Path) -> None:
    """4. Killed before the shim exists or is known to exist: the new daemon starts it or finds it; it runs once."""
    zygote = psutil.Process(site.status()["runtime"]["pid"])
    zygote.send_signal(signal.SIGSTOP)  # a request for a shim now waits
    durable_run = DurableRun.begin(site, tmp_path, wait=False)
    wait_until(lambda: len(_phases(site)) == 2, timeout_s=30, what="both jobs are being prepared", every_s=0.05)
    assert _phases(site) == ["preparing", "preparing"]
    site.worker.kill()
    zygote.send_signal(signal.SIGCONT)  # it can still serve the waiting request
    site.worker.start()
    durable_run.wait_until_it_runs()
    durable_run.assert_nothing_is_lost_or_doubled()


def test_killed_after_the_end_of_a_job_and_before_its_report(site: Site, tmp_path: Path) -> None:
    """4. Killed between a job's end and central's acknowledgement: the new daemon reports it once."""
    durable_run = DurableRun.begin(site, tmp_path)
    failing = site.network.answer_to(PAGES["gateway timeout"], "POST", "/report$", count=1_000)
    durable_run.release()
    wait_until(lambda: _phases(site) == ["ended", "ended"] and failing.hits > 1, timeout_s=30, what="two reports are pending")
    site.worker.kill()
    site.network.forget_rules()
    site.worker.start()
    durable_run.assert_nothing_is_lost_or_doubled()


def test_killed_while_a_task_ends(site: Site, tmp_path: Path) -> None:
    """4. Killed before a task ends: the shim keeps the task's last calls until the new daemon receives them."""
    durable_run = DurableRun.begin(site, tmp_path)
    site.worker.kill()
    durable_run.release()
    wait_until(lambda: (durable_run.directory / "speak.ended").exists(), timeout_s=20, what="it has printed everything")
    site.worker.start()
    durable_run.assert_nothing_is_lost_or_doubled()


def test_restarted_by_its_service_manager(site: Site, tmp_path: Path) -> None:
    """4. `systemctl restart`, an upgrade: SIGTERM, the drain timeout, a new start; the tasks stay the same processes."""
    durable_run = DurableRun.begin(site, tmp_path)
    for _ in range(2):
        site.worker.drain()
        assert site.worker.wait() == 0
        assert durable_run.makes_progress()
        site.worker.start()
        assert durable_run.is_alive()
    durable_run.assert_nothing_is_lost_or_doubled()


def test_started_while_central_is_unreachable(site: Site, tmp_path: Path) -> None:
    """4. and 1. Killed and started during an outage: tasks are adopted without central, and all results arrive afterwards."""
    durable_run: DurableRun = DurableRun.begin(site, tmp_path)
    site.network.refuse()
    site.worker.kill()
    site.worker.start(wait=False)
    wait_until(lambda: site.status()["pid"] == site.worker.pid, timeout_s=20, what="the new daemon is up")
    assert durable_run.makes_progress()
    assert durable_run.is_alive() and site.worker.is_running()
    site.network.heal()
    durable_run.assert_nothing_is_lost_or_doubled()


def _phases(site: Site) -> list[str]:
    return sorted(job["phase"] for job in site.status()["jobs"])
