"""Fixtures of code that travels: central with four bundles, and workers without Dag files.

Two bundles are directories, of which the API server can read one; one is a git repository, and one has versions without git.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testkit.bundles import GIT, LOCAL, SNAPSHOTS
from testkit.network.fault_proxy import FaultProxy
from testkit.processes import wait_until
from testkit.repository import Repository
from testkit.servers.airflow import IDLE_S, Airflow
from testkit.servers.postgres import PostgresServer
from testkit.versions import AIRFLOW, WORK
from testkit.worker import Worker

PACK = r"/trees/[0-9a-f]{64}/pack"
"""The path of a request for a pack."""
NewEmptyWorker = Callable[..., Worker]


@dataclass(frozen=True)
class Pushing:
    """A central that publishes its bundles."""

    airflow: Airflow
    dags: Path
    """The directory of the bundle `dags-folder`."""
    versions: Path
    """The directory of the bundle `versioned`: each directory in it is a version, and the file `now` names the newest."""
    aside: Path
    """The directory of the bundle `aside`, which the API server can't read: often only the Dag processor has the files."""
    repository: Repository
    """The repository of the bundle `repository`."""
    blobs: Path | None
    """The directory of the blob store; None: it is the database."""

    def write(self, path: str, content: str | bytes, *, executable: bool = False) -> Path:
        """Write a file of `dags-folder` as an editor does: the whole file at once."""
        target = self.dags / path
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.new")
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        new.chmod(0o755 if executable else 0o644)
        new.replace(target)
        return target

    def parse(self, dag_id: str, *, bundle: str = "dags-folder") -> None:
        """Have central parse its files now, and return when it knows the Dag."""
        self.airflow.cli("dags", "reserialize", "--bundle-name", bundle)
        # The Dag processor marks a Dag as stale whose file its copy of a bundle lacks, until its next refresh.
        self.airflow.wait_for_dag(dag_id, timeout_s=150)

    def run(self, dag_id: str, *, timeout_s: float = 120) -> tuple[str, str]:
        """Run a Dag; return the id of its run and the run's state."""
        run = self.airflow.trigger(dag_id)
        return run, self.airflow.wait_for_run(dag_id, run, timeout_s=timeout_s)

    def tree(self, run: str) -> str:
        """Return the digest of the tree that all jobs of this run have in common."""
        (tree,) = {job["tree"] for job in self.airflow.jobs(run)}
        return str(tree)


@pytest.fixture(scope="session")
def pushing(home: Path, postgres_server: PostgresServer) -> Iterator[Pushing]:
    """With Airflow 3.4 the blobs are in files, else in the database, so that CI tests both stores for all that is here."""
    dags, versions, aside = home / "pushed-dags", home / "pushed-versions", home / "pushed-aside"
    dags.mkdir()
    aside.mkdir()
    (versions / "v1").mkdir(parents=True)
    (versions / "now").write_text("v1")
    repository = Repository(home / "pushed-repository")
    repository.commit(nothing="")
    blobs = home / "pushed-blobs" if AIRFLOW == "3.4" else None

    def configured(path_of_aside: Path) -> dict[str, str]:
        bundles = {
            "dags-folder": (LOCAL, {"path": str(dags)}),
            "versioned": (SNAPSHOTS, {"path": str(versions)}),
            "aside": (LOCAL, {"path": str(path_of_aside)}),
            "repository": (GIT, {"repo_url": repository.url, "tracking_ref": "main", "refresh_interval": 5}),
        }
        rows = [{"name": name, "classpath": path, "kwargs": options} for name, (path, options) in bundles.items()]
        return {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(rows)}

    deployment = Airflow(
        home / "pushing",
        database_url=postgres_server.create_database("airflow_pushing"),
        dags=dags,
        settings={
            **configured(aside),
            "AIRFLOW__REMOTE__BLOB_STORE": blobs.as_uri() if blobs else "database",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": IDLE_S,
            "PYTHONPATH": str(Path(__file__).parent.parent.parent),
            "UV_FIND_LINKS": str(WORK / "wheels"),  # of the worker that belongs to this provider; the index may lack it
        },
        settings_of_api_server=configured(home / "not-mounted"),
    )
    try:
        yield Pushing(deployment.start(triggerer=True), dags, versions, aside, repository, blobs)
    finally:
        deployment.discard()


@pytest.fixture(scope="session")
def proxy(pushing: Pushing) -> Iterator[FaultProxy]:
    with FaultProxy(pushing.airflow.url) as proxy:
        yield proxy


@pytest.fixture
def new_empty_worker(home: Path, pushing: Pushing, proxy: FaultProxy) -> Iterator[NewEmptyWorker]:
    """Return a function that starts a worker without any bundle, behind the proxy; all are stopped at the end of the test."""
    workers: list[Worker] = []

    def start(name: str, *, settings: str = "", slots: int = 4, has_runtime: bool = True) -> Worker:
        """Start a worker that serves the queue of its name; *settings* is appended to its `worker.toml`."""
        token = pushing.airflow.enrolment_token(queues=name, name_pattern=name)
        worker = Worker(home / name, name=name, central=proxy.url, token=token, slots=slots, has_runtime=has_runtime)
        if settings:
            with (worker.state / "worker.toml").open("a") as file:
                file.write(f"\n{settings}\n")
        workers.append(worker)
        return worker.start()

    yield start
    proxy.heal()
    proxy.forget_rules()
    for worker in workers:
        worker.stop()


def wait_until_published(pushing: Pushing, name: str, *, timeout_s: float = 30) -> dict[str, object]:
    """Return the row of a bundle as soon as it is published."""

    def published() -> dict[str, object] | None:
        rows = pushing.airflow.query("SELECT * FROM remote_bundle WHERE name = :name AND tree IS NOT NULL", name=name)
        return rows[0] if rows else None

    found = wait_until(published, timeout_s=timeout_s, what=f"the bundle {name} is published")
    assert isinstance(found, dict)
    return found


def dag_source(dag_id: str, queue: str, body: str, *, head: str = "") -> str:
    """Return the source of a Dag with one task `main` on *queue*, whose lines are *body*."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    return (
        f"{head}\nfrom airflow.sdk import dag, task\n\n\n@dag(schedule=None)\ndef {dag_id}():\n"
        f'    @task(executor="RemoteExecutor", queue="{queue}")\n    def main():\n{lines}\n\n    main()\n\n\n{dag_id}()\n'
    )


def noise(size: int) -> bytes:
    """Return bytes that no encoding makes smaller."""
    return os.urandom(size)
