"""Topic suite, promise 10: a job that can't be prepared delays no other, and an offer that no worker received is not lost."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil

from e2e.faults.conftest import OFFER_DEADLINE_S, POLL_S
from testkit.durable_run import DurableRun
from testkit.processes import wait_until
from testkit.site import Site

TRIES = 5


def test_a_job_that_cannot_be_prepared_delays_no_other(site: Site, tmp_path: Path) -> None:
    """10. Only that job fails, with the reason; the jobs that were offered with it and after it run."""
    central = site.central
    lacking = central.trigger("nowhere_refused")
    durable_run = DurableRun.begin(site, tmp_path)
    assert central.wait_for_run("nowhere_refused", lacking) == "failed"
    assert durable_run.is_alive()
    [job] = wait_until(  # type: ignore[misc]
        lambda: [job for job in central.jobs(lacking) if job["ended_at"]], timeout_s=20, what="its report has arrived"
    )
    assert (job["outcome"], job["offers"]) == ("unprepared", 1)
    assert "does not exist" in central.task_log("nowhere_refused", lacking, "run")
    durable_run.assert_nothing_is_lost_or_doubled()


def test_a_poll_that_was_cut_gets_no_offer(site: Site, tmp_path: Path) -> None:
    """10. Central detects that a parked poll's connection is closed; the next poll gets the offer, which is the first one."""
    polls = site.network.count("POST", "/poll$")
    wait_until(lambda: site.network.count("POST", "/poll$") > polls, timeout_s=60, what="a poll is parked", every_s=0.02)
    time.sleep(0.1)
    site.network.cut()
    durable_run = DurableRun.begin(site, tmp_path)
    assert [(job["offers"], job["epoch"]) for job in durable_run.jobs()] == [(1, 1), (1, 1)]
    durable_run.assert_nothing_is_lost_or_doubled()


def test_an_offer_to_a_poll_that_died_unseen_comes_back_within_its_deadline(site: Site, tmp_path: Path) -> None:
    """10. Central can't detect that the worker is gone; the offer has a deadline, and the task runs once, at try 1."""
    for number in range(TRIES):
        _stop_in_a_poll(site)
        durable_run = DurableRun.begin(site, tmp_path / str(number), wait=False)
        was_offered = _is_offered_within_a_poll(durable_run)
        begin = time.monotonic()
        site.worker.kill()
        site.network.heal()
        site.worker.start()
        durable_run.wait_until_it_runs()
        took = time.monotonic() - begin
        durable_run.assert_nothing_is_lost_or_doubled()
        if was_offered:
            print(f"came back after {took:.1f} s")
            assert took < OFFER_DEADLINE_S + 30, "the start of a daemon and of a task on a busy computer"
            return
    raise AssertionError(f"in {TRIES} tries the scheduler took longer than a poll lasts")


def _stop_in_a_poll(site: Site) -> None:
    """Stop the daemon while a poll of it is parked. It sends nothing more, closes no connection, and receives nothing."""
    site.worker.kill()
    wait_until(lambda: site.network.connections == 0, timeout_s=60, what="its connections are closed")
    site.worker.start()
    wait_until(lambda: site.worker.status()["free_slots"], timeout_s=30, what="its runtime has passed the canary")
    polls = site.network.count("POST", "/poll$")
    wait_until(lambda: site.network.count("POST", "/poll$") > polls, timeout_s=30, what="a poll is parked", every_s=0.02)
    site.network.half_open("replies")
    psutil.Process(site.worker.pid).send_signal(signal.SIGSTOP)


def _is_offered_within_a_poll(durable_run: DurableRun) -> bool:
    """Return whether a job of the run is offered before the parked poll ends; the stopped daemon begins no other one."""
    try:
        wait_until(
            lambda: any(job["epoch"] for job in durable_run.jobs()),
            timeout_s=POLL_S + 1,
            what="a job is offered to the stopped daemon",
            every_s=0.05,
        )
    except TimeoutError:
        return False
    return True
