"""Topic suite, promise 8: the wall clock of one side jumps by minutes and by days while jobs run and new ones start.

Nothing is lost. Central has three clocks: the API server's, the scheduler's (with which Airflow checks heartbeats), and the
database's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.faults.conftest import NewSite
from testkit.clock import Clock
from testkit.durable_run import DurableRun
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.site import Site

MINUTES_10 = 600.0
DAY = 86_400.0
JUMPS = (MINUTES_10, -MINUTES_10, DAY, -DAY, 0.0)
"""The errors of the worker's clock, one after the other: jumps of up to two days."""
SWEPT_S = 12
"""Presence is written and silent workers are detected every 10 s; Airflow's check of heartbeats runs every 2 s here."""


@dataclass(frozen=True)
class CentralsClocks:
    """The clocks of central's parts, which can be on different computers."""

    api_server: Clock
    scheduler: Clock
    database: Clock

    def set(self, *, api_server: float, scheduler: float, database: float) -> None:
        self.api_server.set(ahead_s=api_server)
        self.scheduler.set(ahead_s=scheduler)
        self.database.set(ahead_s=database)


@pytest.fixture(scope="module")
def workers_clock() -> Iterator[Clock]:
    with Clock() as clock:
        yield clock


@pytest.fixture(scope="module")
def centrals_clocks() -> Iterator[CentralsClocks]:
    with Clock() as api_server, Clock() as scheduler, Clock() as database:
        yield CentralsClocks(api_server, scheduler, database)


@pytest.fixture(scope="module")
def clocked_central(impatient: Airflow, database: PostgresServer, centrals_clocks: CentralsClocks) -> Iterator[str]:
    """Restart central's parts with those clocks and start another API server with its own; return the URL of that one."""
    impatient.stop_process("scheduler")
    database.crash()
    database.resume(variables=centrals_clocks.database.variables)
    impatient.start_process("scheduler", settings=centrals_clocks.scheduler.variables)
    yield impatient.start_another_api_server(called="clocked-api-server", settings=centrals_clocks.api_server.variables)
    for name in ("clocked-api-server", "scheduler"):
        impatient.stop_process(name)
    impatient.start_process("scheduler")  # the database keeps its clock, which is correct from now on


@pytest.fixture(scope="module")
def site(new_site: NewSite, clocked_central: str, workers_clock: Clock) -> Site:
    """Return a site with its own clock, connected to that API server."""
    site = new_site("clocks", url=clocked_central, variables=workers_clock.variables)
    wait_until(site.is_connected, timeout_s=30, what="the worker serves")
    return site


@pytest.fixture(autouse=True)
def correct_clocks(workers_clock: Clock, centrals_clocks: CentralsClocks) -> Iterator[None]:
    yield
    workers_clock.set(ahead_s=0)
    centrals_clocks.set(api_server=0, scheduler=0, database=0)


def test_the_workers_clock_jumps(site: Site, workers_clock: Clock, tmp_path: Path) -> None:
    """8. On the worker: daemon, shims and tasks use monotonic clocks; running jobs continue, new ones start and end."""
    durable_run = DurableRun.begin(site, tmp_path / "all-the-time")
    for number, jump in enumerate(JUMPS):
        workers_clock.set(ahead_s=jump)
        meanwhile = DurableRun.begin(site, tmp_path / str(number))
        assert durable_run.makes_progress()
        meanwhile.assert_nothing_is_lost_or_doubled()
    durable_run.assert_nothing_is_lost_or_doubled()


def test_the_workers_clock_jumps_and_its_daemon_is_killed(
    impatient: Airflow, site: Site, workers_clock: Clock, tmp_path: Path
) -> None:
    """8. The new daemon adopts the processes: it identifies them by their start time since boot, not by the time of day.

    Central's list of workers shows the error of the clock.
    """
    durable_run = DurableRun.begin(site, tmp_path)
    workers_clock.set(ahead_s=-DAY)
    site.worker.kill()
    site.worker.start()
    assert durable_run.makes_progress()
    assert durable_run.is_alive()
    [row] = [row for row in impatient.remote_api("workers") if row["name"] == site.name]
    assert row["clock_off_s"] == pytest.approx(-DAY, abs=30)
    durable_run.assert_nothing_is_lost_or_doubled()


@pytest.mark.parametrize(
    ("api_server_s", "scheduler_s", "database_s"),
    [
        pytest.param(DAY, 0, 0, id="api-server"),
        pytest.param(0, DAY, 0, id="scheduler"),
        pytest.param(0, 0, DAY, id="database"),
        pytest.param(-MINUTES_10, -DAY, -DAY, id="all-behind"),
    ],
)
def test_centrals_clocks_jump(
    impatient: Airflow,
    site: Site,
    centrals_clocks: CentralsClocks,
    tmp_path: Path,
    api_server_s: float,
    scheduler_s: float,
    database_s: float,
) -> None:
    """8. On central: a clock change makes no worker silent, ends no lease, and fails no task for a missing heartbeat.

    The same is true when the clock is corrected.
    """
    durable_run = DurableRun.begin(site, tmp_path)
    centrals_clocks.set(api_server=api_server_s, scheduler=scheduler_s, database=database_s)
    assert site.clock_differs_s() == pytest.approx(-api_server_s, abs=30)
    [row] = impatient.query("SELECT extract(epoch FROM now()) AS now")
    assert float(row["now"]) - time.time() == pytest.approx(database_s, abs=30)
    time.sleep(SWEPT_S)
    if scheduler_s > 0:  # when it is behind, Airflow's heartbeat waits until it reaches the old time
        sql = "SELECT latest_heartbeat - now() AS ahead FROM job WHERE job_type = 'SchedulerJob' ORDER BY id DESC LIMIT 1"
        assert impatient.query(sql)[0]["ahead"].total_seconds() == pytest.approx(scheduler_s, abs=60)
    assert {job["state"] for job in durable_run.jobs()} <= {"running", "succeeded"}
    centrals_clocks.set(api_server=0, scheduler=0, database=0)
    durable_run.assert_nothing_is_lost_or_doubled()


@pytest.mark.parametrize(("ahead_s", "text"), [(MINUTES_10, "600 s ahead of"), (-DAY, "86400 s behind")])
def test_check_reports_a_wrong_clock(site: Site, workers_clock: Clock, ahead_s: float, text: str) -> None:
    """8. `check` reports how far, in which direction, and what to do."""
    assert "FAIL" not in site.worker.run("check")
    workers_clock.set(ahead_s=ahead_s)
    with pytest.raises(RuntimeError, match=rf"FAIL clock +this clock is {text} central's; set up NTP on this machine"):
        site.worker.run("check")
