"""Tests deploy/breeze: runs its files with Breeze's order of steps in a sandbox; the worker is on the "host"."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.worker import Worker

ROOT = Path(__file__).parent.parent
STEPS = ROOT / "e2e/breeze_steps.sh"
OURS = ("*airflow_remote_*", "*airflow_provider_remote*", "__editable__*")
DAG = """
from airflow.sdk import dag, task

@dag
def hello_breeze():
    @task(executor="RemoteExecutor")
    def greet():
        return "from the host"

    greet()

hello_breeze()
"""


class Sandbox:
    """A sandbox with Airflow but without our packages: central's environment before the installation of the provider."""

    def __init__(self, root: Path, database_url: str) -> None:
        self.files, self.dist, self.prefix = root / "files", root / "dist", root / "python"
        config = self.files / "airflow-breeze-config"
        config.mkdir(parents=True)
        for name in ("variables.env", "environment_variables.env", "init.sh"):
            shutil.copy(ROOT / "deploy/breeze" / name, config)
        self._make_environment()
        self._build_wheels()
        self.dags = self.files / "dags"
        self.dags.mkdir()
        (self.dags / "hello_breeze.py").write_text(DAG)
        self.central = Airflow(root / "home", database_url=database_url, dags=self.dags)
        # Breeze does not know our executor before it has read our file.
        del self.central.environment["AIRFLOW__CORE__EXECUTOR"]
        path = f"{self.prefix / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.central.environment |= {"PATH": path, "FILES_DIR": str(self.files), "DIST_DIR": str(self.dist)}

    def enter(self, *command: str, **variables: str) -> str:
        """Run Breeze's steps and then *command* in its shell; return the output."""
        environment = {**self.central.environment, **variables}
        done = subprocess.run(["bash", STEPS, *command], env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    @property
    def token_file(self) -> Path:
        return self.files / "airflow-remote/enrolment-token"

    def _make_environment(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", self.prefix], check=True)
        theirs = Path(sysconfig.get_path("purelib"))
        ours = next(self.prefix.glob("lib/python*/site-packages"))
        # Hard links: they copy Airflow with its bytecode in a second.
        skipped = shutil.ignore_patterns(*OURS, "pip", "pip-*")
        shutil.copytree(theirs, ours, ignore=skipped, copy_function=_link, symlinks=True, dirs_exist_ok=True)
        airflow = self.prefix / "bin/airflow"
        airflow.write_text(f"#!{self.prefix / 'bin/python'}\nfrom airflow.__main__ import main\nmain()\n")
        airflow.chmod(0o755)

    def _build_wheels(self) -> None:
        for project in ("protocol", "provider"):
            build = [ROOT / ".work/dev/bin/python", "-m", "hatchling", "build", "-t", "wheel", "-d", self.dist]
            subprocess.run(build, cwd=ROOT / project, check=True, capture_output=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("breeze"), postgres_server.create_database("breeze"))
    yield sandbox
    sandbox.central.discard()


def test_a_shell_gets_the_provider_and_no_database(sandbox: Sandbox) -> None:
    output = sandbox.enter("python", "-c", "import airflow_remote_provider, os; print(os.environ['AIRFLOW__CORE__EXECUTOR'])")
    assert "RemoteExecutor:airflow_remote_provider" in output
    assert "installing" in output
    assert not sandbox.token_file.exists()


def test_starting_airflow_creates_tables_and_one_token(sandbox: Sandbox) -> None:
    # As in a new container: our packages are not installed when the first `db migrate` runs.
    subprocess.run([sandbox.prefix / "bin/python", "-m", "pip", "uninstall", "-qy", "airflow-provider-remote"], check=True)
    next(sandbox.prefix.glob("lib/python*/site-packages/airflow-remote-wheels.sha256")).unlink()

    output = sandbox.enter("airflow", "remote", "queues", "list", START_AIRFLOW="true")
    assert output.count("Remote Executor: installing") == 1
    assert output.count("Remote Executor: creating tables") == 1
    assert output.count("Remote Executor: created an enrolment token") == 1
    assert "OLDEST_QUEUED_AT" in output
    assert sandbox.token_file.stat().st_mode & 0o777 == 0o600

    token = sandbox.token_file.read_text()
    again = sandbox.enter("airflow", "remote", "enrol", "list", "-o", "json", START_AIRFLOW="true")
    assert "Remote Executor:" not in again
    assert sandbox.token_file.read_text() == token
    assert len(json.loads(next(line for line in again.splitlines() if line.startswith("[{")))) == 1


def test_a_failure_of_init_sh_does_not_prevent_the_start_of_breeze(sandbox: Sandbox, tmp_path: Path) -> None:
    output = sandbox.enter("echo", "Breeze continues", DIST_DIR=str(tmp_path))
    assert "put both into the dist directory" in output
    assert "Breeze continues" in output


def test_the_old_name_of_the_environment_file_works_too(sandbox: Sandbox) -> None:
    output = sandbox.enter("printenv", "AIRFLOW__CORE__EXECUTOR", ENV_FILE="variables.env")
    assert "RemoteExecutor" in output


def test_a_worker_on_the_host_joins_and_runs_a_task(sandbox: Sandbox, tmp_path: Path) -> None:
    central = sandbox.central
    executor = sandbox.enter("printenv", "AIRFLOW__CORE__EXECUTOR").splitlines()[-1]
    central.environment["AIRFLOW__CORE__EXECUTOR"] = executor
    central._bin = sandbox.prefix / "bin"
    central.start()
    worker = Worker(
        tmp_path / "host",
        name="host",
        central=central.url,
        token=sandbox.token_file.read_text().strip(),
        bundles={"dags-folder": sandbox.dags},
    )
    try:
        worker.start()
        run_id = central.trigger("hello_breeze")
        assert central.wait_for_run("hello_breeze", run_id) == "success"
        assert central.xcom("hello_breeze", run_id, "greet") == "from the host"
        ping = httpx.get(f"{central.url}/remote/v1/ping")
        assert (ping.status_code, "airflow-remote-protocol" in ping.headers) == (401, True)
    finally:
        worker.stop()
