"""Topic suite: a worker in one file: on a machine without a package index, installed by one command, with its runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.network.fault_proxy import FaultProxy
from testkit.processes import Process, clean_environment, wait_until
from testkit.versions import WORK

from .conftest import Pushing, dag_source

ROOT = Path(__file__).parent.parent.parent
WHERE = """import sys, airflow
return [sys.prefix, airflow.__file__]"""


class Machine:
    """A computer with Python and nothing else: a home of its own, no package index, no program in the path but the system's."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = home / "state"
        self.home.mkdir()
        self.environment = clean_environment({"HOME": str(home), "PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"})
        self.python = Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info)
        self.daemon: Process | None = None

    def run(self, *words: str | Path, stdin: str = "", may_fail: bool = False) -> str:
        done = subprocess.run(
            words, cwd=self.home, env=self.environment, input=stdin, capture_output=True, text=True, timeout=120
        )
        assert may_fail or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *words: str | Path) -> None:
        """Start the daemon, and return when it has a session."""
        self.daemon = Process("worker", [*words], log=self.home / "worker.out", env=self.environment, cwd=self.home)
        wait_until(self.is_serving, timeout_s=60, what="the worker serves central")

    def is_serving(self) -> bool:
        assert self.daemon is not None and self.daemon.is_running(), self.daemon and self.daemon.tail()
        try:
            status = json.loads((self.state / "status.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        return bool(status["phase"] == "serving" and status["session"])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine")
    yield made
    if made.daemon is not None:
        made.daemon.stop()


def installer(pushing: Pushing, proxy: FaultProxy, out: Path, name: str, *options: str) -> Path:
    words = ["--out", str(out), "--url", proxy.url, "--name", name, "--queues", name, "--wheels", str(WORK / "wheels"), *options]
    pushing.airflow.cli("remote", "installer", *words, timeout_s=200)
    return out


def test_one_command_installs_a_worker_that_fetches_no_runtime(pushing: Pushing, proxy: FaultProxy, machine: Machine) -> None:
    pushing.airflow.cli("remote", "runtimes", "build", "default", "--roll", timeout_s=280)
    pushing.write("installed.py", dag_source("installed", "installed", WHERE))
    pushing.parse("installed")
    file = installer(pushing, proxy, machine.home / "installer.pyz", "installed")
    assert file.stat().st_mode & 0o777 == 0o600  # it holds a token

    machine.run(machine.python, file, "install", "--no-service", "--state", machine.state)
    again = machine.run(machine.python, file, "install", "--no-service", "--state", machine.state)
    assert "installed; run it with" in again
    file.unlink()  # nothing needs the file any more, nor the cache
    machine.run("rm", "-rf", machine.home / ".cache")
    program = machine.state / "installed/current/bin/airflow-remote-worker"
    (runtime,) = (path.name for path in (machine.state / "code/trees").iterdir())
    before = proxy.count("GET", rf"/trees/{runtime}/pack")
    machine.start(program, "run", "--state", machine.state)
    run, state = pushing.run("installed", timeout_s=180)
    assert state == "success", pushing.airflow.task_log("installed", run, "main")
    prefix, package = pushing.airflow.xcom("installed", run, "main")
    assert Path(prefix) == machine.state / "code/runtimes" / runtime / "venv"
    assert Path(package).is_relative_to(machine.state / "code/trees" / runtime)
    assert proxy.count("GET", rf"/trees/{runtime}/pack") == before


def test_an_installer_serves_once_and_is_refused_for_another_platform(
    pushing: Pushing, proxy: FaultProxy, machine: Machine, tmp_path: Path
) -> None:
    options = ["--runtime", ""]
    file = installer(pushing, proxy, tmp_path / "once.pyz", "once", *options)
    machine.run(machine.python, file, "install", "--no-service", "--state", machine.state)
    refused = machine.run(machine.python, file, "install", "--no-service", "--state", machine.home / "other", may_fail=True)
    assert "token" in refused and "joined" not in refused
    foreign = installer(pushing, proxy, tmp_path / "foreign.pyz", "foreign", *options, "--platform", "cp312-linux-musl-aarch64")
    refused = machine.run(machine.python, foreign, "install", "--no-service", may_fail=True)
    assert "only for cp312-linux-musl-aarch64" in refused


def test_worker_pyz_joins_and_runs_a_task(pushing: Pushing, proxy: FaultProxy, machine: Machine) -> None:
    pushing.airflow.cli("remote", "runtimes", "build", "default", "--roll", timeout_s=280)
    pushing.write("onefile.py", dag_source("onefile", "onefile", WHERE))
    pushing.parse("onefile")
    file = machine.home / "worker.pyz"
    platform = f"cp3{sys.version_info.minor}-linux-gnu-x86_64"
    build = [WORK / "central/bin/python", ROOT / "scripts/pyz", "--out", file, "--platform", platform]
    subprocess.run([*build, "--wheels", WORK / "wheels"], check=True, timeout=120)
    token = pushing.airflow.enrolment_token(queues="onefile", name_pattern="onefile")
    at = ["--state", machine.state]
    machine.run(machine.python, file, "join", proxy.url, "--name", "onefile", "--token", "-", *at, stdin=token)
    unit = machine.run(machine.python, file, "service", "install", "--user", *at)
    assert f"wrote {machine.home}/.config/systemd/user" in unit
    (start,) = (
        line.removeprefix("ExecStart=")
        for line in (machine.home / ".config/systemd/user/airflow-remote-worker.service").read_text().splitlines()
        if line.startswith("ExecStart=")
    )
    file.unlink()
    machine.run("rm", "-rf", machine.home / ".cache")
    machine.start(*start.split())
    run, state = pushing.run("onefile", timeout_s=180)
    assert state == "success", pushing.airflow.task_log("onefile", run, "main")
    prefix, _ = pushing.airflow.xcom("onefile", run, "main")
    assert Path(prefix).is_relative_to(machine.state / "code/runtimes")
