"""Topic suite: a worker that is root runs each queue's tasks as a separate user without access to the worker or other queues."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")

DAGS = Path(__file__).parent / "dags"


@pytest.fixture(scope="module")
def users() -> Iterator[Mapping[str, pwd.struct_passwd]]:
    """Create two users of this computer and return them by queue; remove them at the end."""
    names = {queue: f"remote-{queue}-{os.getpid() % 100_000}" for queue in ("alpha", "beta")}
    for name in names.values():
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name], check=True)
    yield {queue: pwd.getpwnam(name) for queue, name in names.items()}
    for name in names.values():
        subprocess.run(["userdel", name], check=False)


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """Return a directory where every user can read the Dags and write files: pytest's directories are closed to other users."""
    place = Path(tempfile.mkdtemp(prefix="remote-users-"))
    place.chmod(0o755)
    shutil.copy(DAGS / "users.py", place / "users.py")
    (place / "left").mkdir()
    (place / "left").chmod(0o1777)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def worker(
    central: Airflow, users: Mapping[str, pwd.struct_passwd], public: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    token = central.enrolment_token(queues="alpha,beta", name_pattern="rooted")
    settings = {f"AIRFLOW_REMOTE_WORKER_QUEUES__{queue}__RUN_AS_USER": user.pw_name for queue, user in users.items()}
    bundles = {"dags-folder": public}
    directory = tmp_path_factory.mktemp("rooted")
    worker = Worker(directory, name="rooted", central=central.url, token=token, bundles=bundles, variables=settings)
    yield worker.start()
    worker.stop()


def test_each_queue_has_its_user_without_access_to_the_worker_or_other_queues(
    central: Airflow, worker: Worker, users: Mapping[str, pwd.struct_passwd], public: Path
) -> None:
    conf = {"place": str(public / "left"), "credential": str(worker.state / "credential.json")}
    run = central.trigger("two_users", conf)
    assert central.wait_for_run("two_users", run) == "success", central.task_log("two_users", run, "leave")
    closed = "PermissionError"
    assert central.xcom("two_users", run, "leave") == [users["alpha"].pw_uid, "alpha's own", closed]
    assert central.xcom("two_users", run, "look") == [users["beta"].pw_uid, closed, closed]


def test_a_stop_ends_the_other_users_processes_and_the_log_is_complete(
    central: Airflow, worker: Worker, users: Mapping[str, pwd.struct_passwd], public: Path
) -> None:
    run = central.trigger("one_lingers", {"place": str(public / "left")})
    pids = public / "left/pids"
    wait_until(pids.exists, timeout_s=60, what="the task runs")
    processes = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    assert {process.uids().real for process in processes} == {users["beta"].pw_uid}
    central.set_task_state("one_lingers", run, "linger", "failed")
    wait_until(lambda: not any(process.is_running() for process in processes), timeout_s=20, what="they have ended")
    [log] = [path for path in worker.task_logs() if b"one_lingers" in path.read_bytes() or b"sleep 600" in path.read_bytes()]
    arrived = central.log_file("one_lingers", run, "linger")
    wait_until(lambda: arrived.read_bytes() == log.read_bytes(), timeout_s=20, what="the log is complete")
