"""Starts the measured processes: one central with all executors of a phase, and the worker of each.

Owns starting, ending, and the assignment of processes to executors. It does not measure.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import psutil

from bench.database import Database
from bench.peers import CELERY, EDGE, LOCAL, OURS, PARALLELISM, SLOTS, Peer
from testkit.processes import Process, wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.servers.redis import RedisServer
from testkit.worker import Worker

ROOT = Path(__file__).parent.parent
DAG_FILE = ROOT / "bench/dags/workloads.py"


class Deployment:
    """Central with the executors *peers*, in *home*, on its own database in *postgres*; one API process, no triggerer."""

    def __init__(self, home: Path, postgres: PostgresServer, peers: Sequence[Peer]) -> None:
        shutil.rmtree(home, ignore_errors=True)
        self.peers = tuple(peers)
        self._home = home
        self._postgres = postgres
        self._stack = ExitStack()
        self._redis = RedisServer(home / "redis") if CELERY in peers else None
        self._workers: dict[str, Process] = {}
        dags = home / "dags"
        dags.mkdir(parents=True)
        for peer in peers:
            shutil.copy(DAG_FILE, dags / f"{peer.name}.py")
        self._dags = dags
        url = postgres.create_database(f"airflow_{home.name}")
        self.database = Database(url)
        self.central = Airflow(home / "central", database_url=url, dags=dags, settings=self._settings(url))
        # Only known once central has chosen its port.
        self.central.environment["AIRFLOW__EDGE__API_URL"] = f"{self.central.url}/edge_worker/v1/rpcapi"
        self.remote: Worker | None = None

    def __enter__(self) -> Deployment:
        with self._stack as stack:
            if self._redis is not None:
                stack.enter_context(self._redis)
            stack.callback(self.central.stop)
            self.central.start()
            stack.callback(self._stop_workers)
            for peer in self.peers:
                self._start_worker(peer)
            for peer in self.peers:
                self._wait_for_worker(peer)
            self.database.connect()
            stack.callback(self.database.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def logs(self) -> str:
        parts = [self.central.logs(20), *(process.tail(20) for process in self._workers.values())]
        return "\n".join([*parts, self.remote.tail(20)] if self.remote else parts)

    # Processes

    def api_processes(self) -> list[psutil.Process]:
        return _tree(self.central.process("api-server").pid)

    def scheduler_processes(self) -> list[psutil.Process]:
        """Return the scheduler's processes without those in which LocalExecutor runs tasks: they count as a worker's."""
        local = {process.pid for process in self.worker_processes(LOCAL)}
        return [process for process in _tree(self.central.process("scheduler").pid) if process.pid not in local]

    def worker_processes(self, peer: Peer) -> list[psutil.Process]:
        """Return all processes that run tasks for *peer*."""
        if peer is OURS:
            assert self.remote is not None
            return [psutil.Process(pid) for pid in {self.remote.pid, *self.remote.stray_pids()}]
        if peer is LOCAL:
            children = psutil.Process(self.central.process("scheduler").pid).children()
            return [each for child in children if "LocalExecutor" in " ".join(child.cmdline()) for each in _tree(child.pid)]
        return _tree(self._workers[peer.name].pid)

    def shared_processes(self) -> list[psutil.Process]:
        """Return the processes of Postgres, and of the broker if there is one."""
        return _tree(self._postgres.pid) + (_tree(self._redis.pid) if self._redis is not None else [])

    # Workers

    def _settings(self, database_url: str) -> Mapping[str, str]:
        settings = {
            "AIRFLOW__CORE__EXECUTOR": ",".join(peer.setting for peer in self.peers),
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW__EDGE__API_ENABLED": str(EDGE in self.peers),
        }
        if self._redis is not None:
            settings["AIRFLOW__CELERY__BROKER_URL"] = self._redis.url
            settings["AIRFLOW__CELERY__RESULT_BACKEND"] = "db+" + database_url
        return settings

    def _start_worker(self, peer: Peer) -> None:
        if peer is OURS:
            token = self.central.enrolment_token()
            self.remote = Worker(
                self._home / "worker",
                name="bench",
                central=self.central.url,
                token=token,
                slots=SLOTS,
                bundles={"dags-folder": self._dags},
            )
            self.remote.start(wait=False)
        elif peer is CELERY:
            # One process per slot from the start: no process is started during the measurement.
            self._start_program(peer, "celery", "worker", "--concurrency", str(SLOTS), "--skip-serve-logs")
        elif peer is EDGE:
            self._start_program(peer, "edge", "worker", "--concurrency", str(SLOTS), "--edge-hostname", "bench")

    def _start_program(self, peer: Peer, *arguments: str) -> None:
        program = Path(self.central.environment["PATH"].split(":")[0]) / "airflow"
        home = self._home / f"{peer.name}-worker"
        home.mkdir(parents=True, exist_ok=True)
        command = [program, *arguments, "--pid", home / "pid"]
        environment = self.central.environment
        self._workers[peer.name] = Process(peer.name, command, log=home / "out", env=environment, cwd=home)

    def _wait_for_worker(self, peer: Peer) -> None:
        if peer is OURS:
            assert self.remote is not None
            wait_until(self.remote.is_serving, timeout_s=60, what="the Remote Worker serves central")
        elif peer.name in self._workers:
            process = self._workers[peer.name]

            def has_started() -> bool:
                if not process.is_running():
                    raise RuntimeError(f"the {peer.name} worker ended at once\n{process.tail()}")
                if peer is EDGE:  # written when it has registered
                    return (self._home / f"{peer.name}-worker" / "pid").exists()
                return " ready." in process.log.read_text(errors="replace")

            wait_until(has_started, timeout_s=90, what=f"the {peer.name} worker has started", every_s=0.3)

    def _stop_workers(self) -> None:
        if self.remote is not None:
            self.remote.stop()
        for process in self._workers.values():
            members = _tree(process.pid) if process.is_running() else []
            process.stop(timeout_s=10)
            for member in members:  # the tasks of Celery and edge3 have their own sessions
                if member.is_running():
                    member.kill()


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]
