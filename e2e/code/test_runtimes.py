"""Topic suite: a worker that has neither Dag files nor a runtime gets both from central, and new runtimes while it works."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from testkit.network.fault_proxy import FaultProxy
from testkit.processes import wait_until
from testkit.versions import AIRFLOW
from testkit.worker import Worker

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
OTHER_USER = """import os, pwd, sys
from pathlib import Path
import airflow.sdk.bases.hook  # a file of the runtime that nothing has read before
from word_of_user import WORD
def denied(path):
    try:
        path.read_bytes()
    except PermissionError:
        return True
state = Path("{state}")
return [pwd.getpwuid(os.geteuid()).pw_name, sys.prefix, WORD, denied(state / "credential.json"), os.access(__file__, os.W_OK)]"""
EARLIER = {"apache-airflow-core": "3.3.1", "apache-airflow-task-sdk": "1.3.1"}
BUILD_EARLIER = f"""
import sys
from airflow.__main__ import main
from airflow_remote_provider.packing.runtimes import requirements

own = requirements.version
requirements.version = lambda name: {EARLIER}.get(name) or own(name)
sys.argv = ["airflow", "remote", "runtimes", "build", "patched", "--no-follow"]
main()
"""
"""Builds what a central with Airflow 3.3.1 would build, with what it would note about it."""
LET_FOLLOW = """
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import runtimes

def follow(session):
    row = runtimes.must_lock(session, "patched")
    row.recipe = {**row.recipe, "follow": True}

compat.in_transaction(follow)
"""
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


@pytest.fixture(scope="module")
def default_runtime(pushing: Pushing) -> None:
    """Build the runtime of queues that name none."""
    build(pushing, "default")


def test_a_worker_without_anything_runs_tasks(pushing: Pushing, default_runtime: None, new_empty_worker: NewEmptyWorker) -> None:
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


@pytest.fixture
def other_user() -> Iterator[str]:
    name = f"remote-code-{os.getpid() % 100_000}"
    subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name], check=True)
    yield name
    subprocess.run(["userdel", name], check=False)


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a directory that every user can enter, as the parent of a state directory must be: pytest's are closed."""
    place = Path(tempfile.mkdtemp(prefix="remote-code-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def public_python() -> Path:
    """Return an interpreter that every user can reach, of our version, as pyenv's below `/root` is not."""
    found = Path(sys.executable).resolve()
    if any(not parent.stat().st_mode & 0o001 for parent in found.parents):
        found = Path(f"/usr/bin/python3.{sys.version_info.minor}")
        if not found.exists():
            pytest.skip(f"other users can't reach {sys.executable}, and there is no {found}")
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")
def test_a_task_of_another_user_runs_in_a_runtime_from_central(
    pushing: Pushing, default_runtime: None, other_user: str, public: Path, public_python: Path
) -> None:
    token = pushing.airflow.enrolment_token(queues="other-user", name_pattern="other-user")
    worker = Worker(public / "worker", name="other-user", central=pushing.airflow.url, token=token, has_runtime=False)
    pushing.write("word_of_user.py", "WORD = 'of the bundle'\n")
    pushing.write("of_user.py", dag_source("of_user", "other-user", OTHER_USER.format(state=worker.state)))
    pushing.parse("of_user")
    with (worker.state / "worker.toml").open("a") as file:
        file.write(f'run_as_user = "{other_user}"\n[update]\naccept = "central"\n[runtime]\ninterpreter = "{public_python}"\n')
    try:
        worker.start()
        run, state = pushing.run("of_user", timeout_s=180)
        assert state == "success", pushing.airflow.task_log("of_user", run, "main")
        user, prefix, word, is_closed, can_write = pushing.airflow.xcom("of_user", run, "main")
        assert (user, word, is_closed, can_write) == (other_user, "of the bundle", True, False)
        assert Path(prefix).is_relative_to(worker.state / "code/runtimes")
        assert pwd.getpwuid(worker.state.stat().st_uid).pw_name == "root"
    finally:
        worker.stop()


@pytest.mark.skipif(AIRFLOW != "", reason="e2e/upgrade has the step from 3.3 to 3.4")
def test_runtimes_follow_a_patch_of_airflow_while_jobs_run(
    pushing: Pushing, proxy: FaultProxy, new_empty_worker: NewEmptyWorker, tmp_path: Path
) -> None:
    """Central builds the patch and rolls it out by itself, and only what has changed travels."""
    command = [sys.executable, "-c", BUILD_EARLIER]
    subprocess.run(command, env=pushing.airflow.environment, cwd=pushing.airflow.home, check=True, timeout=280)
    assigned(pushing, "patched", "patched")
    pushing.write("through_patch.py", dag_source("through_patch", "patched", LONG.format(directory=tmp_path)))
    pushing.write("patched.py", dag_source("patched", "patched", FIRST))
    pushing.parse("patched")
    new_empty_worker("patched", has_runtime=False)
    long_run = pushing.airflow.trigger("through_patch")
    wait_until((tmp_path / "pid").exists, timeout_s=120, what="the long task runs")
    task = psutil.Process(int((tmp_path / "pid").read_text()))
    run, state = pushing.run("patched")
    assert (state, pushing.airflow.xcom("patched", run, "main")[2]) == ("success", "3.3.1")

    before = received(proxy)
    command = [sys.executable, "-c", LET_FOLLOW]
    subprocess.run(command, env=pushing.airflow.environment, cwd=pushing.airflow.home, check=True, timeout=60)
    wait_until(lambda: is_ready(pushing, "patched", "patched", 2), timeout_s=240, what="the worker has the patch", every_s=0.5)
    patch_bytes = received(proxy) - before
    run, state = pushing.run("patched")
    assert (state, pushing.airflow.xcom("patched", run, "main")[2]) == ("success", airflow_version(pushing))
    assert 0 < patch_bytes <= 1_500_000
    assert task.is_running()
    (tmp_path / "go").touch()
    assert pushing.airflow.wait_for_run("through_patch", long_run) == "success"
    assert len(pushing.airflow.jobs(long_run)) == 1


def received(proxy: FaultProxy) -> int:
    """Return the bytes of all answers with code so far."""
    return sum(sum(exchange.reply_bytes) for exchange in list(proxy.exchanges) if "/trees/" in exchange.path)
