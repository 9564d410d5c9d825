"""The deployment that chaos runs disturb: central on its own Postgres, and two workers, each behind a fault proxy.

Owns making and undoing each fault of a schedule. It does not depend on the expected results of the jobs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from e2e.chaos.schedule import WORKERS, Act
from testkit.network.fault_proxy import PAGES, FaultProxy
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.worker import Worker

ROOT = Path(__file__).parent.parent.parent
QUEUE = "chaos"
SLOTS = 4
VARIABLE = "chaos"
CENTRAL = ("api-server", "scheduler", "dag-processor")
SETTINGS = {
    # No LocalExecutor: a scheduler that has lost its database can wait for LocalExecutor's idle processes forever.
    "AIRFLOW__CORE__EXECUTOR": "RemoteExecutor:airflow_remote_provider.executor.RemoteExecutor",
    "AIRFLOW__CORE__PARALLELISM": "32",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    # How soon a new scheduler detects that the old one has ended and adopts its tasks.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
    # A worker keeps a dead connection for the poll's time and 15 s. With the default that would be more than a minute.
    "AIRFLOW__REMOTE__POLL_SECONDS": "5",
}


class Site:
    """The running deployment; `stop()` ends it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log: list[str] = []
        """The notes of the run, each with its time."""
        # Commits must survive the server's crash: their loss would not be a defect of ours.
        self.postgres = PostgresServer({"synchronous_commit": "on"})
        self._begin = time.monotonic()
        self._down: set[str] = set()
        """The processes that the schedule has ended."""

    def start(self) -> Site:
        self.postgres.start()
        dags = self.home / "dags"
        dags.mkdir(parents=True)
        shutil.copy(ROOT / "e2e/dags/chaos.py", dags)
        database = self.postgres.create_database("airflow_chaos")
        self.central = Airflow(self.home / "central", database_url=database, dags=dags, settings=SETTINGS).start()
        self.central.api("POST", "variables", json={"key": VARIABLE, "value": "from central "})
        self.proxies = {name: FaultProxy(self.central.url).start() for name in WORKERS}
        self.workers = {
            name: Worker(
                self.home / name,
                name=name,
                central=self.proxies[name].url,
                token=self.central.enrolment_token(queues=QUEUE, name_pattern=name),
                slots=SLOTS,
                variables={"AIRFLOW_REMOTE_WORKER_POLL__BACKOFF_CEILING_S": "4"},  # outages here are short
                task_variables={"SITE": str(self.home / name)},
            )
            for name in WORKERS
        }
        for worker in self.workers.values():
            worker.start(wait=False)
        for worker in self.workers.values():
            wait_until(worker.is_serving, timeout_s=60, what=f"worker {worker.name} serves central")
        return self

    def stop(self) -> None:
        for worker in getattr(self, "workers", {}).values():
            worker.stop()
        for proxy in getattr(self, "proxies", {}).values():
            proxy.stop()
        if hasattr(self, "central"):
            self.central.stop()
        self.postgres.stop()

    def begin(self) -> None:
        """Reset the time and the notes for a new run."""
        self._begin = time.monotonic()
        self.log = []

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._begin

    def note(self, what: str) -> None:
        line = f"{self.now_s:6.1f} s  {what}"
        self.log.append(line)
        print(line, flush=True)

    def make(self, act: Act) -> Callable[[], None] | None:
        """Make the fault; return a function that undoes it."""
        if act.target in self.proxies and act.what not in ("kill -9", "terminate"):
            return self._disturb_network(act)
        if act.target in self.workers:
            return self._end_daemon(act)
        if act.target == "postgres":
            self.postgres.crash() if act.what == "kill -9" else self.postgres.halt()
            return self.postgres.resume
        return self._end_central(act)

    def supervise(self) -> None:
        """Restart ended processes of central as a service manager does; a worker must never end by itself.

        Raises:
            AssertionError: a worker has ended by itself.
        """
        for name in CENTRAL:
            if name not in self._down and not self.central.is_running(name):
                self.note(f"the {name} has ended by itself; restarted")
                self._start_central(name)
        for worker in self.workers.values():
            assert worker.name in self._down or worker.is_running(), f"the daemon {worker.name} ended by itself\n{worker.tail()}"

    def is_whole(self) -> bool:
        """Return whether all of central is healthy and all workers have a session."""
        self.supervise()
        try:
            health = httpx.get(f"{self.central.url}/api/v2/monitor/health", timeout=10).json()
        except (httpx.TransportError, ValueError):
            return False
        return all(health.get(part, {}).get("status") == "healthy" for part in ("metadatabase", "scheduler")) and all(
            worker.is_serving() for worker in self.workers.values()
        )

    def unsent(self, worker: str) -> list[Path]:
        """Return the directories of jobs whose results, logs or reports the worker has not sent completely."""
        return [path for path in (self.workers[worker].state / "jobs").iterdir() if not (path / "closed.json").exists()]

    def processes(self, worker: str) -> set[int]:
        """Return the pids of a worker's processes, including those that its tasks started."""
        marks = (str(self.workers[worker].state).encode(), f"SITE={self.home / worker}".encode())
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                content = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if any(mark in content for mark in marks):
                found.add(int(entry.name))
        return found

    def _disturb_network(self, act: Act) -> Callable[[], None] | None:
        proxy = self.proxies[act.target]
        if act.what in ("drop_replies", "cut_requests", "cut_replies"):
            *first, method, path, count = act.detail
            rule = getattr(proxy, act.what)(*first, method, path, count=count)

            def forget() -> None:
                proxy.forget_rules()
                self.note(f"       {rule.hits} of {count} hit")

            return forget
        if act.what == "answer":
            proxy.answer(PAGES[act.detail[0]])
        elif act.what == "slow":
            proxy.slow(latency_s=act.detail[0], bytes_per_s=act.detail[1])
        elif act.what == "half_open":
            proxy.half_open(act.detail[0])
        else:
            getattr(proxy, act.what)()
        if act.what == "cut":
            return None

        def heal() -> None:
            proxy.heal()
            if act.detail[-1:] == ("cut",):
                proxy.cut()

        return heal

    def _end_daemon(self, act: Act) -> Callable[[], None]:
        worker = self.workers[act.target]
        self._down.add(act.target)
        worker.kill() if act.what == "kill -9" else worker.detach()

        def start() -> None:
            worker.start(wait=False)
            self._down.discard(act.target)

        return start

    def _end_central(self, act: Act) -> Callable[[], None]:
        self._down.add(act.target)
        if act.what == "kill -9":
            self.central.kill_process(act.target)
        else:
            self.central.stop_process(act.target)

        def start() -> None:
            self._start_central(act.target)
            self._down.discard(act.target)

        return start

    def _start_central(self, name: str) -> None:
        if name == "api-server":
            self.central.start_api_server(wait=False)
        else:
            self.central.start_process(name)
