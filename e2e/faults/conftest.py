"""Fixtures of tests of faults: one central with short timeouts on its own database, and sites whose networks the tests control.

A site is started when a test first requests its name, and kept: a test that ended a daemon or changed a network restores it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, hash_token, make_token
from sqlalchemy import create_engine, text

from testkit.network.fault_proxy import FaultProxy
from testkit.processes import wait_until
from testkit.servers.airflow import IDLE_S, Airflow
from testkit.servers.postgres import PostgresServer
from testkit.servers.webhook import WebhookReceiver
from testkit.site import Site
from testkit.worker import Worker

DAGS = Path(__file__).parent / "dags"
ON_CENTRAL = Path(__file__).parent.parent / "on_central"
HEARTBEAT_TIMEOUT_S = 16
"""Airflow's timeout for the heartbeat of a running task; central refreshes heartbeats every 10 s."""
SILENT_AFTER_S = 13
"""A healthy worker's last contact is up to 11 s old: contacts are written to the database every 10 s."""
POLL_S = 3
RETRY_CEILING_S = 3
"""The highest wait of the workers' back-off."""
OFFER_DEADLINE_S = 2
SLOTS = 8
"""The slots of each site."""
ALERT_SILENT_S = 20
DRAIN_S = 1
"""The workers' drain timeout."""

NewSite = Callable[..., Site]
SiteNamed = Callable[[str], Site]


@pytest.fixture(scope="session")
def faults_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def database() -> Iterator[PostgresServer]:
    """A server that tests kill: its commits must be on disk, as in production."""
    with PostgresServer({"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on"}) as server:
        yield server


@pytest.fixture(scope="session")
def incident_receiver() -> Iterator[WebhookReceiver]:
    """The webhook to which *impatient* sends incidents."""
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def incident_file(faults_home: Path) -> Path:
    """The file to which a notifier of *impatient* writes incidents."""
    return faults_home / "incidents.txt"


@pytest.fixture(scope="session")
def impatient(
    faults_home: Path, database: PostgresServer, incident_receiver: WebhookReceiver, incident_file: Path
) -> Iterator[Airflow]:
    """Central with short timeouts: a worker is silent after 13 s, a task without heartbeat fails after 16 s."""
    notified = {"path": str(incident_file), "text": "{% for one in incidents %}{{ one.event }} {{ one.subject }}\n{% endfor %}"}
    deployment = Airflow(
        faults_home / "central",
        database_url=database.create_database("airflow_faults"),
        dags=Path(shutil.copytree(DAGS, faults_home / "central-dags")),
        settings={
            "AIRFLOW__CORE__PARALLELISM": "48",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "48",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": IDLE_S,
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT_S),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            "AIRFLOW__REMOTE__SILENT_AFTER_SECONDS": str(SILENT_AFTER_S),
            "AIRFLOW__REMOTE__POLL_SECONDS": str(POLL_S),
            "AIRFLOW__REMOTE__OFFER_DEADLINE_SECONDS": str(OFFER_DEADLINE_S),
            "AIRFLOW__REMOTE__OFFER_ATTEMPTS": "8",
            "AIRFLOW__REMOTE__REOFFER_DELAY_SECONDS": "0.5",
            "AIRFLOW__REMOTE__ALERT_SILENT_SECONDS": str(ALERT_SILENT_S),
            "AIRFLOW__REMOTE__ALERT_WEBHOOK": incident_receiver.url,
            "AIRFLOW__REMOTE__NOTIFIERS": json.dumps([{"classpath": "file_notifier.FileNotifier", "kwargs": notified}]),
            "PYTHONPATH": str(ON_CENTRAL),
        },
    )
    try:
        yield deployment.start()
    finally:
        deployment.discard()


@pytest.fixture(scope="session")
def new_site(faults_home: Path, impatient: Airflow) -> Iterator[NewSite]:
    """Return a function that starts a site; all sites are stopped at the end of the session."""
    sites: list[Site] = []
    dags = Path(shutil.copytree(DAGS, faults_home / "worker-dags", ignore=shutil.ignore_patterns("nowhere.py")))

    def start(name: str, *, url: str | None = None, variables: Mapping[str, str] | None = None) -> Site:
        """Start a site; *url* is its network's target, if not *impatient*'s own; all its processes get *variables*."""
        network = FaultProxy(url or impatient.url).start()
        worker = Worker(
            faults_home / name,
            name=name,
            central=network.url,
            token=enrolment_token(impatient, name),
            slots=SLOTS,
            bundles={"dags-folder": dags},
            variables={
                "AIRFLOW_REMOTE_WORKER_POLL__BACKOFF_CEILING_S": str(RETRY_CEILING_S),
                "AIRFLOW_REMOTE_WORKER_DRAIN_TIMEOUT_S": str(DRAIN_S),
                **(variables or {}),
            },
            task_variables=variables,
        )
        sites.append(Site(impatient, worker, network))
        wait_until(lambda: _has_joined(worker), timeout_s=20, what=f"{name} joins central")
        worker.start(wait=False)
        return sites[-1]

    yield start
    for site in sites:
        site.worker.stop()
        site.network.stop()


@pytest.fixture(scope="session")
def site_named(new_site: NewSite) -> SiteNamed:
    """Return a function that returns the site of a name, starting it at the first call; its daemon runs."""
    sites: dict[str, Site] = {}

    def named(name: str) -> Site:
        if name not in sites:
            sites[name] = new_site(name)
        site = sites[name]
        if not site.worker.is_running():
            site.worker.start(wait=False)
        return site

    return named


@pytest.fixture
def site(site_named: SiteNamed) -> Iterator[Site]:
    """Yield the site `refused`, which is connected; undo the test's changes of its network afterwards."""
    site = site_named("refused")
    wait_until(site.is_connected, timeout_s=30, what="the worker serves")
    yield site
    site.network.forget_rules()
    site.network.heal()


def _has_joined(worker: Worker) -> bool:
    try:
        worker.join()
    except RuntimeError as error:
        if "try again later" in str(error):  # the database was restarted a moment ago
            return False
        raise
    return True


def enrolment_token(central: Airflow, site: str) -> str:
    """Do what `airflow remote enrol create` does, without the start-up time of a command of Airflow."""
    token = make_token(TokenKind.ENROLMENT, secrets.token_bytes(TOKEN_BYTES))
    values = {"id": str(uuid.uuid4()), "hash": hash_token(token), "name": site, "queues": json.dumps([site])}
    engine = create_engine(central.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO remote_enrolment "
                "(id, token_hash, name_pattern, queues, uses_left, created_at, created_by, expires_at) "
                "VALUES (:id, :hash, :name, :queues, 1, now(), 'a test', now() + interval '1 hour')"
            ),
            values,
        )
    engine.dispose()
    return token


def restart_ended_processes(central: Airflow) -> None:
    """Restart processes as a service manager does after a database outage: Airflow's scheduler can end without its database."""
    time.sleep(2)
    for name in ("scheduler", "dag-processor", "api-server"):
        if not central.is_running(name):
            print(f"{name} has ended; restarting it")
            central.start_api_server() if name == "api-server" else central.start_process(name)
