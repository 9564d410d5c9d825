"""A real Remote Worker, joined and run as at a site: own directory, and an environment without Airflow's variables.

worker = Worker(directory, name="plant-1", central=central.url, token=token, runtime=…, bundles={"dags-folder": dags})
worker.start()
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testkit.processes import Process, clean_environment, wait_until
from testkit.versions import AIRFLOW, WORK, runtime_of


class Worker:
    """One worker with its state in *directory*. The first `start()` joins.

    *bundles* are directories of the site; the worker fetches the code of other bundles. The default *runtime* has the tests'
    Airflow. Without *has_runtime* the worker fetches its runtime from central.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        central: str,
        token: str,
        bundles: Mapping[str, Path] | None = None,
        slots: int = 4,
        runtime: Path | None = None,
        has_runtime: bool = True,
        program: Path = WORK / "worker/bin/airflow-remote-worker",
        variables: Mapping[str, str] | None = None,
        task_variables: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.name = name
        self.log = directory / "worker.out"
        self._central = central
        self._token = token
        self._program = program
        self._process: Process | None = None
        self.state.mkdir(parents=True, mode=0o700, exist_ok=True)
        settings = [f"slots = {slots}"]
        if has_runtime:
            settings.append(f"[runtime]\npython = {_toml(runtime or runtime_of(AIRFLOW))}")
        if task_variables:
            settings.append("[runtime.env]\n" + "\n".join(f"{key} = {_toml(value)}" for key, value in task_variables.items()))
        settings += [f"[bundles.{_toml(bundle)}]\npath = {_toml(path)}" for bundle, path in (bundles or {}).items()]
        (self.state / "worker.toml").write_text("\n\n".join(settings) + "\n")
        # Its own computer would have no other variables.
        self.environment = clean_environment({"AIRFLOW_REMOTE_WORKER_HOME": str(self.state), **(variables or {})})

    def join(self) -> None:
        """Exchange the enrolment token for the worker's credential."""
        self.run("join", self._central, "--token", self._token, "--name", self.name)

    def start(self, *, wait: bool = True) -> Worker:
        """Join if that has not been done, then run; with *wait*, return when the worker has a session."""
        if not (self.state / "credential.json").exists():
            self.join()
        self._process = Process(
            f"worker {self.name}", [self._program, "run"], log=self.log, env=self.environment, cwd=self.directory
        )
        if wait:
            wait_until(self.is_serving, timeout_s=60, what=f"worker {self.name} serves central")
        return self

    def run(self, *arguments: str, timeout_s: float = 60, may_fail: bool = False, stdin: str = "") -> str:
        """Run another of the worker's commands with *stdin* as its input; return its output.

        Raises:
            RuntimeError: it failed, and *may_fail* is false; the message holds its output.
        """
        done = subprocess.run(
            [self._program, *arguments],
            env=self.environment,
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode != 0 and not may_fail:
            raise RuntimeError(f"airflow-remote-worker {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("status", "--json", may_fail=True)))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait(self, *, timeout_s: float = 60) -> int:
        """Wait until the daemon ends by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s=timeout_s)

    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running()

    def is_serving(self) -> bool:
        """Return whether the daemon that we started has a session with central."""
        assert self._process is not None
        if not self._process.is_running():
            raise RuntimeError(f"worker {self.name} ended at once\n{self._process.tail()}")
        try:
            status = json.loads((self.state / "status.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        return bool(status["pid"] == self.pid and status["phase"] == "serving" and status["session"])

    def kill(self) -> None:
        """`kill -9` only the daemon; its shims and tasks continue."""
        if self._process is not None:
            self._process.stop(signal.SIGKILL, group=False)
            self._process = None

    def detach(self, *, timeout_s: float = 20) -> None:
        """End the daemon at once, with two SIGTERMs; its shims and tasks continue."""
        if self._process is not None:
            self._process.send(signal.SIGTERM)
            time.sleep(0.2)  # two signals at the same moment count as one
            self._process.stop(signal.SIGTERM, timeout_s=timeout_s, group=False)
            self._process = None

    def drain(self, *, wait: bool = True) -> None:
        """Send SIGTERM, as a service manager does: the daemon ends within its drain timeout; running tasks continue."""
        assert self._process is not None
        self._process.send(signal.SIGTERM)
        if wait:
            self.wait()

    def stop(self, *, timeout_s: float = 20) -> None:
        """End the daemon, with two SIGTERMs so that it doesn't wait for its jobs; then kill all processes that it started."""
        if self._process is not None:
            strays = _descendants(self._process.pid)
            self._process.send(signal.SIGTERM)
            self._process.stop(signal.SIGTERM, timeout_s=timeout_s)
            self._process = None
            for pid in strays:
                _kill(pid)
        # Shims leave the daemon's session, and shims of an earlier daemon aren't its children.
        for pid in self.stray_pids():
            _kill(pid)

    def stray_pids(self) -> list[int]:
        """Return the pids of all processes of this worker: its state directory is in their environment or command line."""
        found = []
        mark = str(self.state).encode()
        for entry in Path("/proc").glob("[0-9]*"):
            if int(entry.name) == os.getpid():
                continue
            try:
                if mark in (entry / "environ").read_bytes() or mark in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def task_logs(self) -> list[Path]:
        """Return the local logs of the jobs that this worker still keeps."""
        return sorted(self.state.glob("jobs/**/task.log"), key=lambda path: path.stat().st_mtime)

    def tail(self, lines: int = 40) -> str:
        if not self.log.exists():
            return f"({self.name} wrote no log)"
        return "\n".join([f"--- worker {self.name}", *self.log.read_text(errors="replace").splitlines()[-lines:]])


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _toml(text: str | Path) -> str:
    return json.dumps(str(text))
