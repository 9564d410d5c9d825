"""Promise 8. Somebody sets the wall clock of one side, by minutes and by days, while jobs run and new ones come. Nothing is lost.

Central has three: the API server's, the scheduler's (by which Airflow itself judges heartbeats), and the database's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.faults.conftest import NewSite, restart_what_ended
from testkit.airflow import Airflow
from testkit.clock import Clock
from testkit.postgres import PostgresServer
from testkit.processes import wait_until
from testkit.witness import Site

MINUTES_10 = 600.0
DAY = 86_400.0
JUMPS = (MINUTES_10, -MINUTES_10, DAY, -DAY, 0.0)
"""How wrong the clock is, one after the other: jumps of up to two days."""
SWEPT_S = 12
"""Presence is written down and silent workers are looked for every 10 s; Airflow's check of heartbeats runs every 2 s here."""


@pytest.fixture(scope="module")
def workers_clock() -> Iterator[Clock]:
    with Clock() as clock:
        yield clock


@pytest.fixture(scope="module")
def centrals_clock() -> Iterator[Clock]:
    with Clock() as clock:
        yield clock


@pytest.fixture(scope="module")
def api_server(impatient: Airflow, centrals_clock: Clock) -> Iterator[str]:
    """One more API server behind the same database, with a clock of its own."""
    yield impatient.start_another_api_server(called="clocked-api-server", settings=centrals_clock.variables)
    impatient.stop_process("clocked-api-server")


@pytest.fixture(scope="module")
def site(new_site: NewSite, api_server: str, workers_clock: Clock) -> Site:
    """A site with a clock of its own, which speaks to that API server."""
    site = new_site("clocks", url=api_server, variables=workers_clock.variables)
    wait_until(site.hears_central, timeout_s=30, what="the worker serves")
    return site


@pytest.fixture(scope="module")
def clocked_scheduler(impatient: Airflow, centrals_clock: Clock) -> Iterator[None]:
    impatient.stop_process("scheduler")
    impatient.start_process("scheduler", settings=centrals_clock.variables)
    yield
    impatient.stop_process("scheduler")
    impatient.start_process("scheduler")


@pytest.fixture(scope="module")
def clocked_database(impatient: Airflow, database: PostgresServer, site: Site, centrals_clock: Clock) -> None:
    database.crash()
    database.recover(variables=centrals_clock.variables)
    restart_what_ended(impatient)
    wait_until(site.hears_central, timeout_s=20, what="the worker is back")


@pytest.fixture(autouse=True)
def right_clocks(workers_clock: Clock, centrals_clock: Clock) -> Iterator[None]:
    yield
    workers_clock.set(ahead_s=0)
    centrals_clock.set(ahead_s=0)


def test_the_workers_clock_jumps(site: Site, workers_clock: Clock, tmp_path: Path) -> None:
    """8. On the worker: daemon, shims and tasks go by monotonic clocks; jobs that run live on, new ones come and end."""
    witness = site.begin(tmp_path / "all-the-time")
    for number, jump in enumerate(JUMPS):
        workers_clock.set(ahead_s=jump)
        meanwhile = site.begin(tmp_path / str(number))
        assert witness.goes_on()
        meanwhile.assert_nothing_is_lost_or_doubled()
    witness.assert_nothing_is_lost_or_doubled()


def test_the_workers_clock_jumps_and_its_daemon_is_killed(site: Site, workers_clock: Clock, tmp_path: Path) -> None:
    """8. … and the new daemon adopts what it finds: a process is known by its start since boot, not by the time of day."""
    witness = site.begin(tmp_path)
    workers_clock.set(ahead_s=-DAY)
    site.worker.kill()
    site.worker.start()
    assert witness.goes_on()
    assert witness.is_alive()
    witness.assert_nothing_is_lost_or_doubled()


def test_the_api_servers_clock_jumps(site: Site, centrals_clock: Clock, tmp_path: Path) -> None:
    """8. On central: leases, offers and presence go by the database's clock, whatever an API server believes."""
    witness = site.begin(tmp_path / "all-the-time")
    for number, jump in enumerate(JUMPS):
        centrals_clock.set(ahead_s=jump)
        assert site.clock_differs_s() == pytest.approx(-jump, abs=30)
        assert witness.goes_on()
        if jump == MINUTES_10:
            site.begin(tmp_path / str(number)).assert_nothing_is_lost_or_doubled()
    witness.assert_nothing_is_lost_or_doubled()


@pytest.mark.parametrize("ahead_s", [DAY, -DAY])
def test_the_schedulers_clock_jumps(
    impatient: Airflow, clocked_scheduler: None, site: Site, centrals_clock: Clock, tmp_path: Path, ahead_s: float
) -> None:
    """8. The scheduler compares heartbeats with its own clock: the executor notices that it was set, and vouches at once."""
    witness = site.begin(tmp_path)
    centrals_clock.set(ahead_s=ahead_s)
    time.sleep(SWEPT_S)
    if ahead_s > 0:  # Airflow's own heartbeat waits for the clock to come to where it was
        sql = "SELECT latest_heartbeat - now() AS ahead FROM job WHERE job_type = 'SchedulerJob' ORDER BY id DESC LIMIT 1"
        assert impatient.query(sql)[0]["ahead"].total_seconds() == pytest.approx(ahead_s, abs=60)
    centrals_clock.set(ahead_s=0)
    witness.assert_nothing_is_lost_or_doubled()


@pytest.mark.parametrize("ahead_s", [DAY, -DAY])
def test_the_databases_clock_jumps(
    impatient: Airflow, clocked_database: None, site: Site, centrals_clock: Clock, tmp_path: Path, ahead_s: float
) -> None:
    """8. No worker has been silent because the database's clock was set."""
    witness = site.begin(tmp_path)
    centrals_clock.set(ahead_s=ahead_s)
    [told] = impatient.query("SELECT extract(epoch FROM now()) AS now")
    assert float(told["now"]) - time.time() == pytest.approx(ahead_s, abs=30)
    time.sleep(SWEPT_S)
    assert [job["state"] for job in witness.jobs()] == ["running", "running"]
    witness.assert_nothing_is_lost_or_doubled()


@pytest.mark.parametrize(("ahead_s", "said"), [(MINUTES_10, "600 s ahead of"), (-DAY, "86400 s behind")])
def test_check_says_that_the_clock_is_off(site: Site, workers_clock: Clock, ahead_s: float, said: str) -> None:
    """8. `check` says how far, in which direction, and what to do."""
    assert "FAIL" not in site.worker.run("check")
    workers_clock.set(ahead_s=ahead_s)
    with pytest.raises(RuntimeError, match=rf"FAIL clock +this clock is {said} central's; set up NTP on this machine"):
        site.worker.run("check")
