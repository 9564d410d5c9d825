"""Fixtures of all e2e tests: central on Postgres and one worker, more workers, a deployment for tests that kill processes.

Central's Dag files and the workers' are separate copies, as on separate computers.

An idle deployment takes a seventh of a core. So files that share one run one after the other, and it ends after the last of them,
not with the session.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testkit.servers.airflow import IDLE_S, Airflow
from testkit.servers.postgres import PostgresServer
from testkit.site import Site
from testkit.worker import Worker

HERE = Path(__file__).parent
ROOT = HERE.parent
ELSEWHERE = "elsewhere"
"""A bundle that only central has, and can't publish."""

PARALLELISM = 4
"""`[core] parallelism` of the redundant deployment."""

DAGS_OF_REDUNDANT = ("answers", "long", "long_names", "routed", "shared")
"""To parse each Dag file takes half a second."""

SHARED = ("impatient", "pushing", "redundant", "central")
"""The fixtures of deployments that several files share, in the order in which they are used.

The group that takes longest comes first, the many short files that need only `central` last: so processes end together."""

GROUPS = {
    "pushing": ("code/",),
    "impatient": (
        "faults/test_outages.py",
        "faults/test_clocks.py",
        "faults/test_lost_replies.py",
        "faults/test_restarts_of_worker.py",
        "faults/test_restarts_of_central.py",
        "faults/test_fairness.py",
        "faults/test_alerts.py",
    ),
    "redundant": (
        "test_schedulers.py",
        "test_api_servers.py",
        "test_limits.py",
        "test_answers.py",
        "test_long_names.py",
    ),
}
"""Files that run in one process, so that the deployment with that name starts once. Half of all tests need only `central`, and
run in each process."""

NEEDED = pytest.StashKey[frozenset[str]]()
"""The deployments of :data:`SHARED` that the file of a test needs."""

NewWorker = Callable[..., Worker]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that share a deployment beside each other, and the longest first, so that processes end together.

    pytest-xdist keeps this order with `--no-loadscope-reorder`.
    """
    ours = [item for item in items if isinstance(item, pytest.Function) and HERE in item.path.parents]
    needed: defaultdict[Path, set[str]] = defaultdict(set)
    for item in ours:
        needed[item.path] |= {*SHARED} & {*item.fixturenames}
    for path, names in needed.items():
        place = path.relative_to(HERE).as_posix()
        expected = next((name for name in GROUPS if name in names), place)
        if group_of(place) != expected:
            raise pytest.UsageError(f"e2e/conftest.py: GROUPS has {place} in {group_of(place)!r}; its tests need {expected!r}")
    for item in ours:
        item.stash[NEEDED] = frozenset(needed[item.path])
    tests = Counter(item.path for item in ours)
    others = [item for item in items if NEEDED not in item.stash]
    items[:] = others + sorted(ours, key=lambda item: (_place(item.stash[NEEDED]), -tests[item.path], item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each group of files to one process. Called in the process that collects no tests."""
    from xdist.scheduler import LoadFileScheduling

    class ByGroup(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.split("::", 1)[0].removeprefix("e2e/"))

    return ByGroup(config, log)


def group_of(place: str) -> str:
    """Return the name in :data:`GROUPS` of a file below this directory, or the file itself."""
    return next((name for name, places in GROUPS.items() if place.startswith(places)), place)


def _place(needed: frozenset[str]) -> tuple[int, int]:
    """Return the place of a file by the deployments that it needs; files with deployments of their own follow the first group."""
    return min((SHARED.index(name) for name in needed), default=1), len(needed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """End a deployment, and all fixtures that depend on it, when the next file doesn't need it.

    pytest itself ends what lives as long as the session only with the session.
    """
    yield
    if nextitem is not None:
        unneeded = item.stash.get(NEEDED, frozenset()) - nextitem.stash.get(NEEDED, frozenset())
        for name in unneeded:
            for fixture in item.session._fixturemanager.getfixturedefs(name, item) or ():
                fixture.finish(item._request)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def workers_of() -> defaultdict[str, list[Worker]]:
    """The workers that tests started, by central's URL: they end before their central does."""
    return defaultdict(list)


@pytest.fixture(scope="session")
def central(home: Path, postgres_server: PostgresServer, workers_of: dict[str, list[Worker]]) -> Iterator[Airflow]:
    dags = _copy_dags(home / "central-dags")
    elsewhere = Path(shutil.copytree(ROOT / "e2e/dags_elsewhere", home / "central-elsewhere"))
    (elsewhere / "outside.txt").symlink_to("/etc/hostname")  # which keeps this bundle from being published
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [
        {"name": name, "classpath": local, "kwargs": {"path": str(path)}}
        for name, path in (("dags-folder", dags), (ELSEWHERE, elsewhere))
    ]
    deployment = Airflow(
        home / "central",
        database_url=postgres_server.create_database("airflow_e2e"),
        dags=dags,
        settings={
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "PYTHONPATH": str(ROOT / "e2e/on_central"),
            "AIRFLOW__CORE__PARALLELISM": "16",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            # Short, so that a test of lost jobs only waits for `lost_after`.
            "AIRFLOW__REMOTE__RECONNECT_SECONDS": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": IDLE_S,
            # Settings that tasks at a site must receive too (test_task_settings).
            "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Europe/Berlin",
            "AIRFLOW__CORE__DEFAULT_TASK_EXECUTION_TIMEOUT": "3000",
            "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "recipe",
            "AIRFLOW__TRIGGERER__ON_KILL_TIMEOUT": "25",
        },
    )
    try:
        yield deployment.start(triggerer=True)
    finally:
        _stop_all(workers_of.pop(deployment.url, []))
        deployment.discard()


@pytest.fixture(scope="session")
def redundant(home: Path, postgres_server: PostgresServer, workers_of: dict[str, list[Worker]]) -> Iterator[Airflow]:
    """A deployment for tests that kill its schedulers and API servers, or wait for its (short) timeouts."""
    deployment = Airflow(
        home / "redundant",
        database_url=postgres_server.create_database("airflow_redundant"),
        dags=_copy_dags(home / "redundant-dags", DAGS_OF_REDUNDANT),
        settings={
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW__REMOTE__GATEWAY_BODY_BYTES": str(1 << 20),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": IDLE_S,
            # How soon one scheduler detects that another has ended.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
            # The longest time that a task can be queued: longer than the replacement of a scheduler takes.
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "40",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "2",
            "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "0",
            # Without the default's `dag_id=`, ids of 250 characters are valid file names.
            "AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE": "{{ ti.dag_id }}/{{ ti.run_id }}/{{ ti.task_id }}/"
            "{% if ti.map_index >= 0 %}{{ ti.map_index }}/{% endif %}{{ try_number|default(ti.try_number) }}.log",
        },
    )
    try:
        yield deployment.start()
    finally:
        _stop_all(workers_of.pop(deployment.url, []))
        deployment.discard()


@pytest.fixture(scope="session")
def new_worker(home: Path, workers_of: defaultdict[str, list[Worker]]) -> Iterator[NewWorker]:
    """Return a function that starts a worker; a worker is stopped before its central ends, at the latest with the session."""
    dags = _copy_dags(home / "worker-dags")

    def start(
        central: Airflow,
        name: str,
        *,
        queues: str,
        slots: int = 4,
        variables: Mapping[str, str] | None = None,
        url: str | None = None,
        environment: Mapping[str, str] | None = None,
        has_dags: bool = True,
        **more: Any,
    ) -> Worker:
        """Start a worker with *variables* for its tasks and *environment* for itself; *url* is central's, if not *central*'s own.

        Without *has_dags* it fetches the code from central. *more* are other arguments of :class:`Worker`.
        """
        worker = Worker(
            home / name,
            name=name,
            central=url or central.url,
            token=central.enrolment_token(queues=queues, name_pattern=name),
            slots=slots,
            bundles={"dags-folder": dags} if has_dags else None,
            # Airflow 3.4 kills a task that ignores a stop after this time; 3.3 always after 5 s.
            task_variables={"SITE": name, "AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME": "5", **(variables or {})},
            variables=environment,
            **more,
        )
        workers_of[central.url].append(worker)
        return worker.start()

    yield start
    for workers in workers_of.values():
        _stop_all(workers)


@pytest.fixture(scope="session")
def worker(central: Airflow, new_worker: NewWorker) -> Worker:
    """Return the worker that serves the queue `default`."""
    return new_worker(central, "home", queues="default", slots=4)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the processes' logs to the report of a failure; without them it is rarely possible to find the cause."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and isinstance(item, pytest.Function):
        for name, thing in item.funcargs.items():
            if isinstance(thing, Airflow):
                report.sections.append((name, thing.logs(25)))
            elif isinstance(thing, Worker):
                report.sections.append((name, thing.tail(40)))
            elif isinstance(thing, Site):
                report.sections.append((name, thing.worker.tail(40)))


def _stop_all(workers: Iterable[Worker]) -> None:
    for worker in workers:
        worker.stop()


def _copy_dags(target: Path, only: Collection[str] = ()) -> Path:
    """Copy the Dag files of these tests and of the demo, or those named *only*."""
    target.mkdir(exist_ok=True)
    for source in (ROOT / "e2e/dags", ROOT / "demo/dags"):
        for file in source.iterdir():
            if file.is_file() and (not only or file.stem in only):
                shutil.copy(file, target)
    return target
