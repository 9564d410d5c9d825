"""Topic suite, promise 5: while many jobs run and some wait, each of central's parts is killed and restarted.

All tests share one load. Nothing is lost or doubled.
"""

from __future__ import annotations

import time

import pytest

from e2e.faults.conftest import SLOTS, SiteNamed, restart_ended_processes
from testkit.durable_run import DurableRun
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.site import Site

DURABLE_RUNS = 6
"""Each has two tasks: together more than the slots of a site, so that some wait."""
AWAY_S = 2


@pytest.fixture(scope="module")
def site(site_named: SiteNamed) -> Site:
    site = site_named("pages")
    wait_until(site.is_connected, timeout_s=30, what="the worker serves")
    return site


@pytest.fixture(scope="module")
def load(site: Site, tmp_path_factory: pytest.TempPathFactory) -> list[DurableRun]:
    """Start durable runs that print and push frequently, so that requests are in transit at any moment."""
    home = tmp_path_factory.mktemp("load")
    durable_runs = [DurableRun.begin(site, home / str(number), wait=False, every_s=0.05) for number in range(DURABLE_RUNS)]
    wait_until(lambda: sum(one.tasks_begun() for one in durable_runs) == SLOTS, timeout_s=60, what="the site is full")
    return durable_runs


def test_the_api_server_is_killed_or_stopped_and_started_again(impatient: Airflow, site: Site, load: list[DurableRun]) -> None:
    """5. API server killed during requests; and restarted as for an upgrade."""
    for end in (impatient.kill_process, impatient.stop_process):
        end("api-server")
        time.sleep(AWAY_S)
        impatient.start_api_server()
        wait_until(site.is_connected, timeout_s=20, what="the worker is connected")


def test_the_database_crashes_and_recovers(
    impatient: Airflow, database: PostgresServer, site: Site, load: list[DurableRun]
) -> None:
    """5. Database restarted, and with it each part of central that ends because of that."""
    database.crash()
    time.sleep(AWAY_S)
    database.resume()
    restart_ended_processes(impatient)
    wait_until(site.is_connected, timeout_s=20, what="the worker is connected")


def test_the_scheduler_is_replaced(impatient: Airflow, load: list[DurableRun]) -> None:
    """5. Scheduler replaced. Tasks end while no scheduler runs."""
    impatient.kill_process("scheduler")
    load[0].release()
    time.sleep(AWAY_S)
    impatient.start_process("scheduler")


def test_nothing_is_lost_or_doubled(load: list[DurableRun]) -> None:
    """5. No lost or doubled job, log byte or result."""
    for durable_run in load:
        durable_run.release()
    for durable_run in load:
        durable_run.assert_nothing_is_lost_or_doubled()
