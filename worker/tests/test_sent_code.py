"""The whole daemon on a machine without any Dag: it runs what central sends."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from airflow_remote_protocol.messages import HeldJob, JobKind, Outcome, Poll, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_worker import daemon as daemon_module
from airflow_remote_worker.cli import main
from airflow_remote_worker.config import AcceptConfig, CodeConfig, Config, ConfigError
from airflow_remote_worker.daemon import locked_code
from airflow_remote_worker.jobs import launcher
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.testing.code import keep_raw, slow
from airflow_remote_worker.testing.fake_central import FakeCentral

from .conftest import FAKE_RUNTIME, RunningWorker, eventually, no_signals

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def empty(central: FakeCentral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningWorker]:
    """A worker whose machine has no bundle."""
    central.code.encode = keep_raw
    monkeypatch.setattr(launcher, "LAUNCHER", FAKE_RUNTIME)
    monkeypatch.setattr(daemon_module, "daemon_signals", no_signals)
    worker = RunningWorker(central, tmp_path, bundles={})
    worker.join()
    yield worker
    worker.detach()
    worker.end_processes()


def events(central: FakeCentral, job_id: str) -> list[str]:
    return [json.loads(line)["event"] for line in central.log_bytes(job_id).splitlines()]


def restart(worker: RunningWorker) -> None:
    worker.detach()
    worker.start()


def test_an_empty_machine_runs_what_central_sends(central: FakeCentral, empty: RunningWorker) -> None:
    empty.start()
    job_id = empty.enqueue_tree("run\nlog hello\nexit 0")
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    tree = central.job(job_id).tree
    assert tree is not None
    assert events(central, job_id)[:2] == [f"Bundle 'dags-folder', tree {tree.digest[:12]}, sent by central", "hello"]
    eventually(lambda: central.inventory("w1") == [tree.digest])


def test_the_log_s_first_line_names_the_version_and_central_s_note_follows(central: FakeCentral, empty: RunningWorker) -> None:
    empty.start()
    digest = central.publish({"a_dag.py": b"run\nexit 0"})
    ref = type(central.code.ref(digest))(digest=digest, files=1, bytes=10, note="This is not the newest code.")
    bundle = {"name": "dags-folder", "version": "3f2a"}
    job_id = central.enqueue("q", tree=ref, workload={"bundle": bundle})
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    assert events(central, job_id)[:2] == [
        f"Bundle 'dags-folder', version 3f2a, tree {digest[:12]}, sent by central",
        "This is not the newest code.",
    ]


def test_the_site_s_own_directory_wins_and_says_so(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    (worker.bundle / "a_dag.py").write_text("run\nlog site\nexit 0")
    job_id = worker.enqueue_tree("run\nlog central\nexit 0")
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    first, second = events(central, job_id)[:2]
    assert first.startswith(f"Bundle 'dags-folder' is this machine's own directory {worker.bundle} (bundles.dags-folder.path)")
    assert second == "site"
    assert central.requests_to("trees/") == []


def test_without_code_from_either_side_the_log_names_both_remedies(central: FakeCentral, empty: RunningWorker) -> None:
    empty.start()
    job_id = central.enqueue("q")
    central.wait_for_state(job_id, JobState.FAILED)
    log = central.log_bytes(job_id)
    assert b"airflow remote publish dags-folder" in log
    assert b"bundles.dags-folder.path" in log


def test_a_tree_without_the_dag_file_fails_the_job_with_the_reason(central: FakeCentral, empty: RunningWorker) -> None:
    empty.start()
    job_id = empty.enqueue_tree("exit 0", workload={"dag_rel_path": "gone.py"})
    central.wait_for_state(job_id, JobState.FAILED)
    report = central.job(job_id).report
    assert report is not None
    assert report.outcome is Outcome.UNPREPARED
    assert "has no file 'gone.py'; check that .remoteignore does not exclude it" in report.reason


@pytest.mark.parametrize("path", ["../../../instance", "/etc/passwd"])
def test_a_dag_file_outside_of_the_tree_is_not_one_of_it(central: FakeCentral, empty: RunningWorker, path: str) -> None:
    empty.start()
    job_id = empty.enqueue_tree("exit 0", workload={"dag_rel_path": path})
    central.wait_for_state(job_id, JobState.FAILED)
    assert "has no file" in str(central.job(job_id).report)


def test_two_versions_run_side_by_side(central: FakeCentral, empty: RunningWorker) -> None:
    empty.start()
    one = empty.enqueue_tree("run\nlog one\nsleep 60")
    central.wait_for_state(one, JobState.RUNNING)
    two = empty.enqueue_tree("run\nlog two\nexit 0")
    central.wait_for_state(two, JobState.SUCCEEDED)
    assert events(central, two)[1] == "two"
    assert central.job_state(one) == "running"
    central.end_task(one)


def test_code_that_stays_damaged_returns_the_job_with_the_reason_and_runs_nothing(
    central: FakeCentral, empty: RunningWorker
) -> None:
    empty.start()
    script = b"run\nlog it ran\nexit 0"
    digest = central.publish({"a_dag.py": script})
    central.code.damage(script)
    job_id = central.enqueue("q", tree=central.code.ref(digest))
    eventually(lambda: central.job(job_id).declines)
    assert "arrived damaged 3 times" in central.job(job_id).declines[0]
    assert central.log_bytes(job_id) == b""
    eventually(lambda: not list(empty.state.jobs.glob("*.1")))
    central.code.mend(script)
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert events(central, job_id)[1] == "it ran"


def test_a_stop_ends_a_fetch_that_no_other_job_needs(central: FakeCentral, empty: RunningWorker) -> None:
    empty.start()
    central.code.always = slow(100_000)
    job_id = empty.enqueue_tree("run\nexit 0", {"data.bin": os.urandom(3_000_000)})
    eventually(lambda: central.requests_to("/pack"))
    central.end_task(job_id, reason=StopReason.ENDED)
    eventually(lambda: central.job(job_id).report)
    assert central.job(job_id).report.outcome is Outcome.STOPPED  # type: ignore[union-attr]
    assert list((empty.state.code / "incoming").glob("*.pack")), "the part is kept"
    central.code.always = None
    again = empty.enqueue_tree("run\nexit 0")
    central.wait_for_state(again, JobState.SUCCEEDED)


def test_the_progress_is_in_status_and_in_polls(
    central: FakeCentral, empty: RunningWorker, capsys: pytest.CaptureFixture[str]
) -> None:
    empty.start()
    central.code.always = slow(400_000)
    job_id = empty.enqueue_tree("run\nexit 0", {"data.bin": os.urandom(1_500_000)})
    eventually(lambda: central.requests_to("/pack"))
    eventually(lambda: any("code " in job["detail"] and "%" in job["detail"] for job in empty.daemon_status()["jobs"]))
    main(["status", "--state", str(empty.state.root)])
    assert f"job      {job_id} (epoch 1) preparing, code " in capsys.readouterr().out
    empty.enqueue_tree("run\nexit 0")  # its offer causes a poll
    held: list[HeldJob] = []

    def found() -> bool:
        polls = [msgspec.json.decode(request.body, type=Poll) for request in central.requests_to("poll")]
        held[:] = [job for poll in polls for job in poll.jobs if job.detail]
        return bool(held)

    eventually(found)
    assert held[0].detail.startswith("code ")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=30)


def test_a_restart_goes_on_with_a_fetch(central: FakeCentral, empty: RunningWorker) -> None:
    empty.start()
    central.code.faults.append(slow(400_000))
    job_id = empty.enqueue_tree("run\nexit 0", {"data.bin": os.urandom(1_500_000)})
    eventually(lambda: any(path.stat().st_size > 400_000 for path in (empty.state.code / "incoming").glob("*.pack")))
    restart(empty)
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=30)
    one, two = central.requests_to("/pack")
    assert "range" not in one.headers
    assert int(two.headers["range"].removeprefix("bytes=").removesuffix("-")) >= 400_000


def test_after_a_restart_the_tree_of_a_running_job_is_still_pinned(central: FakeCentral, empty: RunningWorker) -> None:
    empty.config = Config(**{**_fields(empty.config), "code": CodeConfig(total_mb=0)})
    empty.start()
    running = empty.enqueue_tree("run\nlog here\nsleep 60")
    central.wait_for_state(running, JobState.RUNNING)
    tree = central.job(running).tree
    assert tree is not None
    restart(empty)
    other = empty.enqueue_tree("run\nexit 0")
    central.wait_for_state(other, JobState.SUCCEEDED, timeout_s=20)
    later = empty.enqueue_tree("run\nlog later\nexit 0")
    central.wait_for_state(later, JobState.SUCCEEDED, timeout_s=20)
    held = {path.name for path in (empty.state.code / "trees").iterdir()}
    assert tree.digest in held
    other_tree = central.job(other).tree
    assert other_tree is not None
    eventually(lambda: other_tree.digest not in {path.name for path in (empty.state.code / "trees").iterdir()})
    central.end_task(running)
    eventually(lambda: central.job(running).report)


def _fields(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in Config.__struct_fields__}


def test_a_damaged_file_is_replaced_before_the_next_job(central: FakeCentral, empty: RunningWorker) -> None:
    empty.start()
    first = empty.enqueue_tree("run\nlog right\nexit 0")
    central.wait_for_state(first, JobState.SUCCEEDED)
    empty.detach()  # so that its files are compared at the next use
    (path,) = (empty.state.code / "trees").glob("*/files/a_dag.py")
    path.chmod(0o644)
    path.write_text("run\nlog wrong\nexit 0")
    empty.start()
    second = empty.enqueue_tree("run\nlog right\nexit 0")
    central.wait_for_state(second, JobState.SUCCEEDED, timeout_s=20)
    assert events(central, second)[1] == "right"
    assert len(central.requests_to("/blobs")) == 1


def test_a_full_disk_returns_the_job_and_no_code_is_requested(
    central: FakeCentral, empty: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty.start()
    script = "run\nexit 0"
    free = empty.config.min_free_mb * 1_000_000
    monkeypatch.setattr("airflow_remote_worker.code.bundles.BundleCode._missing", lambda self, needed: needed + free - free)
    job_id = empty.enqueue_tree(script)
    eventually(lambda: central.job(job_id).declines)
    assert "disk full: code needs" in central.job(job_id).declines[0]
    assert central.requests_to("/pack") == []
    monkeypatch.undo()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)


@pytest.mark.parametrize(
    ("accept", "setting"),
    [
        (AcceptConfig(bundles=("other", "etl-*")), "accept.bundles"),
        (AcceptConfig(dags=("b_*",)), "accept.dags"),
        (AcceptConfig(queues=("night",)), "accept.queues"),
    ],
)
def test_what_the_site_does_not_accept_fails_before_anything_is_fetched(
    central: FakeCentral, empty: RunningWorker, accept: AcceptConfig, setting: str
) -> None:
    empty.config = Config(**{**_fields(empty.config), "accept": accept})
    empty.start()
    job_id = empty.enqueue_tree("run\nexit 0")
    central.wait_for_state(job_id, JobState.FAILED)
    assert setting in str(central.job(job_id).report)
    assert central.requests_to("/pack") == []


def test_callbacks_run_from_the_tree_too(central: FakeCentral, empty: RunningWorker) -> None:
    empty.start()
    workload = {"callback_id": "c", "path": "a_dag.f", "kwargs": {}}
    job_id = empty.enqueue_tree("exit 0", kind=JobKind.CALLBACK, workload=workload)
    eventually(lambda: events(central, job_id))
    assert events(central, job_id)[0].endswith("sent by central")


def test_many_jobs_wait_for_one_fetch(central: FakeCentral, empty: RunningWorker) -> None:
    central.code.always = slow(600_000)
    job_ids = [empty.enqueue_tree("run\nexit 0", {"data.bin": bytes(range(256)) * 2_000}) for _ in range(4)]
    empty.start()
    for job_id in job_ids:
        central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=30)
    assert len(central.requests_to("/pack")) == 1


def test_two_workers_can_t_share_a_directory_for_code(tmp_path: Path) -> None:
    config = Config(state=tmp_path / "one", code=CodeConfig(path=tmp_path / "code"))
    other = Config(state=tmp_path / "two", code=CodeConfig(path=tmp_path / "code"))
    refused = pytest.raises(ConfigError, match=r"code\.path: another worker uses .*a directory of its own")
    with locked_code(config), refused, locked_code(other):
        pass
    with locked_code(other):
        assert stat.S_IMODE((tmp_path / "code").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs tasks as another user")
def test_another_user_can_read_the_tree_and_nothing_else(central: FakeCentral, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "LAUNCHER", FAKE_RUNTIME)
    monkeypatch.setattr(daemon_module, "daemon_signals", no_signals)
    with tempfile.TemporaryDirectory(prefix="arw-") as place:
        Path(place).chmod(0o711)
        worker = RunningWorker(central, Path(place), bundles={}, run_as_user="nobody")
        assert worker.config.shares_state
        (worker.state.root).mkdir(mode=0o700)
        (worker.state.root / "worker.toml").write_text('proxy = "http://user:secret@proxy"')
        worker.state = State(worker.state.root, is_shared=True)
        worker.join()
        worker.start()
        try:
            job_id = worker.enqueue_tree("run\nlog hello\nexit 0", {"package/module.py": b"x = 1"})
            central.wait_for_state(job_id, JobState.SUCCEEDED)
            root = worker.state.root
            (files,) = (root / "code" / "trees").glob("*/files")
            allowed = [path for path in files.rglob("*") if path.is_file()]
            assert len(allowed) == 2
            secrets = [path for path in root.rglob("*") if files not in path.parents and path.is_file()]
            assert {root / "credential.json", root / "worker.toml", root / "lock"} <= set(secrets)
            assert stat.S_IMODE(root.stat().st_mode) == 0o711
            assert _as_nobody(allowed, secrets, root, files) == []
        finally:
            worker.detach()
            worker.end_processes()


def _as_nobody(allowed: list[Path], secrets: list[Path], root: Path, files: Path) -> list[str]:
    """Return what the user `nobody` can do that it shouldn't, or can't that it should."""
    script = """
import json, os, pwd, sys
allowed, secrets, root, files = json.loads(sys.argv[1])
user = pwd.getpwnam("nobody")
os.initgroups("nobody", user.pw_gid); os.setgid(user.pw_gid); os.setuid(user.pw_uid)
wrong = [f"can't read {path}" for path in allowed if not os.access(path, os.R_OK)]
wrong += [f"reads {path}" for path in secrets if os.access(path, os.R_OK)]
wrong += [f"writes {path}" for path in [*allowed, *secrets, root, files] if os.access(path, os.W_OK)]
wrong += [f"lists {root}"] if os.access(root, os.R_OK) else []
wrong += [] if os.access(files, os.R_OK | os.X_OK) else [f"can't list {files}"]
print(json.dumps(wrong))
"""
    paths = json.dumps([list(map(str, allowed)), list(map(str, secrets)), str(root), str(files)])
    done = subprocess.run([sys.executable, "-c", script, paths], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs tasks as another user")
def test_a_tree_that_the_other_user_can_t_reach_fails_the_job_with_the_remedy(central: FakeCentral, empty: RunningWorker) -> None:
    """The temporary directories of pytest are closed to other users."""
    empty.config = Config(**{**_fields(empty.config), "run_as_user": "nobody"})
    empty.start()
    job_id = empty.enqueue_tree("run\nexit 0")
    central.wait_for_state(job_id, JobState.FAILED)
    assert "the user nobody can't reach the code" in str(central.job(job_id).report)
    assert "set code.path in the settings" in str(central.job(job_id).report)


def test_an_older_central_gets_no_inventory(central: FakeCentral, empty: RunningWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_remote_worker.daemon.agree", lambda ours, theirs: frozenset())
    empty.start()
    job_id = empty.enqueue_tree("run\nexit 0")
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    time.sleep(0.2)
    assert central.inventory("w1") is None
