"""Topic suite: a worker that has neither Dag files nor a runtime gets both from central, and new runtimes while it works."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from testkit.processes import wait_until

from .conftest import NewEmptyWorker, Pushing, dag_source

FIRST = """import subprocess, sys
from pathlib import Path
import airflow
subprocess.check_call(["normalizer", "--version"])  # a program of one of its packages
return [sys.prefix, airflow.__file__, airflow.__version__]"""
LONG = """import os, time
from pathlib import Path
directory = Path("{directory}")
(directory / "pid").write_text(str(os.getpid()))
while not (directory / "go").exists():
    time.sleep(0.1)
import airflow.sdk.bases.hook  # from the files that it began with
return airflow.sdk.bases.hook.__file__"""
EXTRA = """from e2e_extra import WORD
return WORD"""


@pytest.fixture
def wheels(pushing: Pushing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of wheels for builds, besides those of the index."""
    monkeypatch.setitem(pushing.airflow.environment, "UV_FIND_LINKS", str(tmp_path))
    return tmp_path


def write_wheel(directory: Path, version: str, files: dict[str, str]) -> None:
    """Write a wheel of the package `e2e-extra`."""
    about = f"e2e_extra-{version}.dist-info"
    files = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: e2e-extra\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(directory / f"e2e_extra-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"]))


def build(pushing: Pushing, name: str, *options: str) -> None:
    pushing.airflow.cli("remote", "runtimes", "build", name, *options, timeout_s=280)


def assigned(pushing: Pushing, runtime: str, queue: str) -> None:
    pushing.airflow.remote_change("PUT", "queues", queue, "runtime", runtime=runtime)


def shown(pushing: Pushing, runtime: str) -> Any:
    return pushing.airflow.client().get(f"/remote/ui/v1/runtimes/{runtime}").json()


def is_ready(pushing: Pushing, runtime: str, worker: str, serial: int) -> bool:
    rows = [row for row in shown(pushing, runtime)["workers"] if row["worker"] == worker]
    return any(row["serial"] == serial and row["phase"] == "ready" for row in rows)


def airflow_version(pushing: Pushing) -> str:
    return str(pushing.airflow.api("GET", "version")["version"])


def test_a_worker_without_anything_runs_tasks(pushing: Pushing, new_empty_worker: NewEmptyWorker) -> None:
    build(pushing, "default")
    pushing.write("bare.py", dag_source("bare", "bare", FIRST))
    pushing.parse("bare")
    worker = new_empty_worker("bare", has_runtime=False)
    run, state = pushing.run("bare", timeout_s=180)
    assert state == "success", pushing.airflow.task_log("bare", run, "main")
    prefix, package, version = pushing.airflow.xcom("bare", run, "main")
    code = worker.state / "code"
    assert Path(prefix).is_relative_to(code / "runtimes")
    assert Path(package).is_relative_to(code / "trees")
    (job,) = pushing.airflow.jobs(run)
    assert job["runtime"] in package
    assert version == airflow_version(pushing)
    assert is_ready(pushing, "default", "bare", 1)


def test_a_new_runtime_reaches_a_worker_whose_jobs_run_on(
    pushing: Pushing, new_empty_worker: NewEmptyWorker, wheels: Path, tmp_path: Path
) -> None:
    build(pushing, "changing")
    assigned(pushing, "changing", "changing")
    pushing.write("long_job.py", dag_source("long_job", "changing", LONG.format(directory=tmp_path)))
    pushing.write("extra.py", dag_source("extra", "changing", EXTRA))
    pushing.parse("extra")
    worker = new_empty_worker("changing", has_runtime=False)
    long_run = pushing.airflow.trigger("long_job")
    wait_until((tmp_path / "pid").exists, timeout_s=120, what="the long task runs")
    task = psutil.Process(int((tmp_path / "pid").read_text()))

    lacking, state = pushing.run("extra")
    assert state == "failed"
    hint = "The runtime 'changing' has no module 'e2e_extra'"
    wait_until(lambda: hint in pushing.airflow.task_log("extra", lacking, "main"), timeout_s=20, what="the log has the hint")

    write_wheel(wheels, "1.0", {"e2e_extra.py": "WORD = 'from the second serial'\n"})
    (tmp_path / "requirements.txt").write_text("e2e-extra\n")
    build(pushing, "changing", "--requirements", str(tmp_path / "requirements.txt"))
    assert not is_ready(pushing, "changing", "changing", 2)  # not before it is rolled out
    pushing.airflow.cli("remote", "runtimes", "roll", "changing")
    wait_until(lambda: is_ready(pushing, "changing", "changing", 2), timeout_s=120, what="the worker has the second serial")
    run, state = pushing.run("extra")
    assert (state, pushing.airflow.xcom("extra", run, "main")) == ("success", "from the second serial")
    assert task.is_running()

    pushing.airflow.cli("remote", "runtimes", "roll", "changing", "--to", "1")
    wait_until(lambda: is_ready(pushing, "changing", "changing", 3), timeout_s=120, what="the worker is back")
    _, state = pushing.run("extra")
    assert state == "failed"

    worker.kill()
    worker.start()
    assert task.is_running()
    (tmp_path / "go").touch()
    assert pushing.airflow.wait_for_run("long_job", long_run) == "success"
    (job,) = pushing.airflow.jobs(long_run)
    assert job["runtime"] in pushing.airflow.xcom("long_job", long_run, "main")


def test_a_runtime_that_fails_its_canary_halts_the_rollout(
    pushing: Pushing, new_empty_worker: NewEmptyWorker, wheels: Path, tmp_path: Path
) -> None:
    build(pushing, "halting")
    assigned(pushing, "halting", "halting")
    pushing.write("halting.py", dag_source("halting", "halting", "return 'runs'"))
    pushing.parse("halting")
    new_empty_worker("halting", has_runtime=False)
    _, state = pushing.run("halting", timeout_s=180)
    assert state == "success"

    write_wheel(wheels, "2.0", {"sitecustomize.py": "raise SystemExit('this runtime is broken')\n"})
    (tmp_path / "requirements.txt").write_text("e2e-extra==2.0\n")
    build(pushing, "halting", "--requirements", str(tmp_path / "requirements.txt"))
    pushing.airflow.remote_change("POST", "runtimes", "halting", "roll", percent=100)
    halted = wait_until(lambda: shown(pushing, "halting")["about"]["halted"], timeout_s=120, what="the rollout halts")
    assert "halting" in str(halted)
    assert "this runtime is broken" in str(halted)
    run, state = pushing.run("halting")
    assert (state, pushing.airflow.xcom("halting", run, "main")) == ("success", "runs")
