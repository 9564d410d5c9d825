"""Tasks that run as another user than the worker, which is root."""

from __future__ import annotations

import json
import os
import pwd
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_remote_worker.local import job_files, run_as

from .conftest import Job, StubDaemon, ZygoteUnderTest
from .test_callbacks import callback

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY = "nobody"

CURIOUS_TASK = """
import json, os, pathlib, socket
from airflow.sdk import DAG, task
def attempt(deed):
    try:
        deed()
        return "did it"
    except OSError as error:
        return type(error).__name__
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        print("i am", json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), os.environ["USER"]]))
        print("credential:", attempt(lambda: pathlib.Path("{credential}").read_text()))
        print("job directory:", attempt(lambda: os.listdir("{jobs}")))
        print("gateway:", attempt(lambda: socket.socket(socket.AF_UNIX).connect("{gateway}")))
        print("back to root:", attempt(lambda: os.setuid(0)))
        print("supervisor:", attempt(lambda: os.kill(os.getppid(), 9)))
        print("its memory:", attempt(lambda: open(f"/proc/{{os.getppid()}}/mem", "rb")))
        pid = os.fork()
        if pid == 0:
            os._exit(os.geteuid() == 0)
        print("a child of it is root:", bool(os.waitpid(pid, 0)[1]))
    a_task()
"""
OPEN_FILES = """
import fcntl, os, stat
def open_files():
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):
        try:
            mode, flags = os.fstat(number).st_mode, fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the listing's own
            continue
        how = "reads" if flags == os.O_RDONLY else "writes"
        print("open:", number, how, "socket" if stat.S_ISSOCK(mode) else target, flush=True)
"""
TASK_THAT_LOOKS = (
    OPEN_FILES
    + """
from airflow.sdk import DAG, task
open_files()
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        open_files()
    a_task()
"""
)
CALLBACK_THAT_LOOKS = (
    OPEN_FILES
    + """
def report():
    open_files()
"""
)
CALLBACK = """
import os
def report():
    print("the callback is", os.geteuid())
"""
SHELL_TASK = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.bash import BashOperator
with DAG("a_dag", schedule=None):
    BashOperator(task_id="a_task", bash_command="echo i am $(id -un) in $(pwd); touch made-here; sleep {seconds}")
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A worker's private directory beside Dags that every user may read."""
    opened = {place: place.stat().st_mode for place in (tmp_path, *tmp_path.parents) if place.stat().st_mode & 0o011 == 0}
    for place, mode in opened.items():
        place.chmod(mode | 0o011)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    credential = state / "credential.json"
    credential.write_text("the secret")
    credential.chmod(0o600)
    yield state
    for place, mode in opened.items():
        place.chmod(mode)


@pytest.mark.runtime
@as_root
def test_a_task_can_neither_read_its_worker_s_files_nor_act_as_the_worker(
    state: Path, zygote: ZygoteUnderTest, make_job: Callable[..., Job], daemon: StubDaemon
) -> None:
    source = CURIOUS_TASK.format(credential=state / "credential.json", jobs=state, gateway=daemon.socket_path)
    daemon.socket_path.chmod(0o600)
    job = make_job(source, run_as_user=NOBODY)
    job.directory.chmod(0o700)
    zygote.spawn(job)
    assert job.result() == job_files.Result(exit_code=0, final_state="success", begun=True), job.events()
    outcomes = dict(line.split(": ", 1) for line in job.events().splitlines() if ": " in line)
    nobody = pwd.getpwnam(NOBODY)
    (who,) = [line.removeprefix("i am ") for line in job.events().splitlines() if line.startswith("i am ")]
    uids, gids, groups, name = json.loads(who)
    assert (uids, gids, name) == ([nobody.pw_uid] * 3, [nobody.pw_gid] * 3, NOBODY)
    assert 0 not in groups
    for deed in ("credential", "job directory", "gateway", "back to root", "supervisor", "its memory"):
        assert outcomes[deed] == "PermissionError", deed
    assert outcomes["a child of it is root"] == "False"
    assert {(job.directory / name).stat().st_uid for name in ("task.log", "result.json")} == {0}, "the shim is still root"


@pytest.mark.runtime
@as_root
@pytest.mark.parametrize(("source", "other"), [(TASK_THAT_LOOKS, {}), (CALLBACK_THAT_LOOKS, callback("report"))])
def test_the_user_s_process_has_no_open_files_of_the_worker_except_the_sdk_s_sockets(
    state: Path, zygote: ZygoteUnderTest, make_job: Callable[..., Job], source: str, other: dict[str, object]
) -> None:
    job = make_job(source, run_as_user=NOBODY, **other)
    zygote.spawn(job)
    assert job.result().exit_code == 0, job.events()
    found = [line.split()[1:] for line in job.events().splitlines() if line.startswith("open: ")]
    assert found
    assert {what for _, how, what in found if how == "writes"} <= {"socket", "/dev/null"}, found
    assert not [what for _, _, what in found if str(job.directory) in what], found


@pytest.mark.runtime
@as_root
def test_a_shell_s_children_are_that_user_s_and_end_with_a_stop(
    state: Path, zygote: ZygoteUnderTest, make_job: Callable[..., Job], daemon: StubDaemon
) -> None:
    job = make_job(SHELL_TASK.format(seconds=100), run_as_user=NOBODY)
    zygote.spawn(job)
    job.wait_for_event(f"i am {NOBODY}")
    daemon.stop_job()
    assert job.result().stopped


@pytest.mark.runtime
@as_root
def test_a_callback_is_that_user_s_as_well(state: Path, zygote: ZygoteUnderTest, make_job: Callable[..., Job]) -> None:
    job = make_job(CALLBACK, run_as_user=NOBODY, **callback("report"))
    zygote.spawn(job)
    assert job.result().exit_code == 0, job.log()
    assert f"the callback is {pwd.getpwnam(NOBODY).pw_uid}" in job.events()


@pytest.mark.runtime
@as_root
def test_a_connection_test_is_not_made_as_root_instead(zygote: ZygoteUnderTest, make_job: Callable[..., Job]) -> None:
    workload = {"connection_test_id": str(uuid.uuid4()), "connection_id": "plant", "timeout_s": 5}
    job = make_job("", run_as_user=NOBODY, kind="connection-test", workload=workload)
    zygote.spawn(job)
    assert "another user" in job.result().error


@pytest.mark.runtime
@as_root
def test_a_job_of_an_unknown_user_does_not_run(zygote: ZygoteUnderTest, make_job: Callable[..., Job]) -> None:
    job = make_job("raise SystemExit('never parsed')", run_as_user="who-is-this")
    zygote.spawn(job)
    result = job.result()
    assert result.exit_code == 1 and "no user 'who-is-this'" in result.error


@as_root
def test_root_is_not_accepted_as_another_user() -> None:
    with pytest.raises(ValueError, match="root itself"):
        run_as.find_user("root")


def test_only_root_can_run_jobs_as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionError, match="runs as root"):
        run_as.find_user(NOBODY)


@as_root
def test_a_process_that_cannot_become_the_user_exits_instead_of_continuing_as_root() -> None:
    become = run_as.make_user_switcher(NOBODY)
    pid = os.fork()
    if pid == 0:
        os.setuid = lambda uid: (_ for _ in ()).throw(OSError("refused"))  # type: ignore[assignment]
        become()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == run_as.NO_ACCESS
