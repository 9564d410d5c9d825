"""A Dag run whose tasks write what they printed and pushed to their own disk, for a comparison with what central stores.

    site = Site(central, worker, network)
    durable_run = DurableRun.begin(site, directory)  # two tasks: one prints numbered lines, one pushes numbered XComs
    site.network.black_hole()
    …
    durable_run.release()
    durable_run.assert_nothing_is_lost_or_doubled()

The Dags are `e2e/faults/dags/durable_run.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from testkit.processes import wait_until
from testkit.site import Site

TASKS = ("speak", "push")


@dataclass
class DurableRun:
    """One Dag run that records on its own disk what it did."""

    site: Site
    dag_id: str
    run_id: str
    directory: Path
    _processes: dict[str, psutil.Process] = field(default_factory=dict)

    @classmethod
    def begin(cls, site: Site, directory: Path, *, wait: bool = True, **params: Any) -> DurableRun:
        """Start a run on *site* that writes into *directory*; with *wait*, return when both of its tasks run."""
        directory.mkdir(parents=True, exist_ok=True)
        dag_id = f"durable_{site.name}"
        durable_run = cls(site, dag_id, site.central.trigger(dag_id, {"directory": str(directory), **params}), directory)
        if wait:
            durable_run.wait_until_it_runs()
        return durable_run

    def wait_until_it_runs(self, *, timeout_s: float = 60) -> None:
        try:
            wait_until(self.has_begun, timeout_s=timeout_s, what=f"the tasks of {self.dag_id} run")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.site.worker.tail()}\n{self.site.central.logs(15)}") from None
        self._processes = {task: psutil.Process(self._pids(task)[0]) for task in TASKS}

    def has_begun(self) -> bool:
        return self.tasks_begun() == len(TASKS)

    def tasks_begun(self) -> int:
        return sum(bool(self._pids(task)) for task in TASKS)

    def lines(self) -> list[str]:
        """Return the lines that it has printed so far; the last one may be incomplete."""
        return (self.directory / "printed").read_text().splitlines()

    def is_alive(self) -> bool:
        """Return whether its tasks are still the processes that they started as (pid and start time)."""
        return all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in self._processes.values())

    def makes_progress(self, *, within_s: float = 5) -> bool:
        """Wait until it has printed more lines.

        Raises:
            TimeoutError: it has not within *within_s*.
        """
        before = len(self.lines())
        return bool(wait_until(lambda: len(self.lines()) > before + 2, timeout_s=within_s, what=f"{self.dag_id} prints more"))

    def release(self) -> None:
        """Let its tasks end."""
        (self.directory / "go").touch()

    def wait_for_end(self, *, timeout_s: float = 120) -> None:
        """Return when the run has ended and all of its logs and reports have arrived."""
        self.site.central.wait_for_run(self.dag_id, self.run_id, timeout_s=timeout_s)
        self._wait(lambda: all(job["ended_at"] for job in self.jobs()), f"all jobs of {self.dag_id} have ended")

    def jobs(self) -> list[dict[str, Any]]:
        return self.site.central.jobs(self.run_id)

    def assert_nothing_is_lost_or_doubled(self) -> None:
        """Release the tasks, wait for the end, and check that every byte, result and state is present exactly once."""
        self.release()
        self.wait_for_end()
        central = self.site.central
        assert central.run_state(self.dag_id, self.run_id) == "success", central.task_instances(self.dag_id, self.run_id)
        assert {job["task_id"]: job["state"] for job in self.jobs()} == dict.fromkeys(TASKS, "succeeded")
        assert len(self.jobs()) == len(TASKS), self.jobs()
        for job in self.jobs():
            task = job["task_id"]
            assert len(self._pids(task)) == 1, f"{task} of {self.dag_id} was run {len(self._pids(task))} times"
            if self._processes:
                assert self._pids(task) == [self._processes[task].pid]
            now = central.task_instance(self.dag_id, self.run_id, task)
            assert (now["state"], now["try_number"]) == ("success", 1), now
            self._assert_same_log(job)
        assert self._events() == self.lines()
        assert self._xcoms("speak") == {"return_value": len(self.lines())}
        pushed = self._xcoms("push")
        count = pushed.pop("return_value")
        assert count > 0
        assert pushed == {f"number_{number}": number for number in range(count)}

    def _assert_same_log(self, job: dict[str, Any]) -> None:
        here = (self.site.worker.state / "jobs" / f"{job['id']}.{job['epoch']}" / "task.log").read_bytes()
        there = self._log_file(job["task_id"]).read_bytes()
        assert hashlib.sha256(there).hexdigest() == hashlib.sha256(here).hexdigest(), f"{len(there)} of {len(here)} bytes"
        assert (job["log_size"], job["log_sha256"]) == (len(here), hashlib.sha256(here).hexdigest())

    def _log_file(self, task: str) -> Path:
        return self.site.central.log_file(self.dag_id, self.run_id, task)

    def _events(self) -> list[str]:
        """The numbered lines in central's log, as the task printed them."""
        events = [json.loads(line)["event"] for line in self._log_file("speak").read_text().splitlines()]
        return [event for event in events if str(event).startswith("line ")]

    def _xcoms(self, task: str) -> dict[str, Any]:
        rows = [row for row in self.site.central.xcoms(self.dag_id, self.run_id) if row["task_id"] == task]
        return {row["key"]: json.loads(row["value"]) if isinstance(row["value"], str) else row["value"] for row in rows}

    def _pids(self, task: str) -> list[int]:
        """Return the pids of the processes that ran the task's code, in order. (The file may exist before its first line.)"""
        noted = self.directory / task
        return [int(pid) for pid in noted.read_text().split()] if noted.exists() else []

    def _wait(self, check: Callable[[], object], what: str) -> None:
        try:
            wait_until(check, timeout_s=60, what=what, every_s=0.3)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.site.worker.tail()}\n{self.site.central.logs(15)}") from None
