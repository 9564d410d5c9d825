"""Topic suite: releases of the worker that central sends, with real processes. A task runs on through each change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import airflow_remote_protocol
import airflow_remote_worker
import psutil
import pytest
from airflow_remote_protocol.messages import HeldRelease, ReleasePhase, TreeRef, WantedRelease
from airflow_remote_protocol.states import JobState
from airflow_remote_worker.config import RuntimeConfig
from airflow_remote_worker.lifecycle import EXIT_OK
from airflow_remote_worker.testing.code import keep_raw
from airflow_remote_worker.testing.fake_central import FakeCentral

from .conftest import FAKE_RUNTIME, RunningWorker, eventually, is_running

pytestmark = pytest.mark.timeout(240)

OF_THE_FAKE = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
WORKER = "site-packages/airflow_remote_worker"
ON_TRIAL = "\nimport os\nif 'AIRFLOW_REMOTE_TRIAL' in os.environ:\n    {}\n"
"""Code of a module that a release on trial runs when it is imported, and its self-test does not."""


@pytest.fixture
def site(central: FakeCentral, tmp_path: Path) -> Iterator[Site]:
    central.code.encode = keep_raw
    worker = RunningWorker(central, tmp_path, runtime=RuntimeConfig(python=Path(sys.executable), env=OF_THE_FAKE))
    worker.join()
    site = Site(central, worker, tmp_path)
    yield site
    site.end()
    worker.end_processes()


class Site:
    """A worker whose daemon is a real process, and central, which sends it releases."""

    def __init__(self, central: FakeCentral, worker: RunningWorker, root: Path) -> None:
        self.central = central
        self.worker = worker
        self.go = root / "go"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> subprocess.Popen[bytes]:
        own = {f"AIRFLOW_REMOTE_WORKER_{name}": value for name, value in settings.items()}
        self.process = self.worker.start_process(own)
        eventually(lambda: self.central.worker("w1").session_id)
        return self.process

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children():
                child.kill()
            self.process.kill()
            self.process.wait()

    def begin_job(self) -> str:
        """Start a task that runs until :meth:`finish`."""
        job_id = self.worker.enqueue(f"run\nlog one\nawait {self.go}\nlog two\nexit 0")
        eventually(lambda: b"one" in self.central.log_bytes(job_id), timeout_s=60)
        return job_id

    def finish(self, job_id: str) -> None:
        """Let the task end, and check that it ran once, through everything."""
        self.go.touch()
        self.central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=60)
        assert [json.loads(line)["event"] for line in self.central.log_bytes(job_id).splitlines()] == ["one", "two"]
        assert self.central.job_epoch(job_id) == 1

    def shim(self, job_id: str) -> bytes:
        return (self.worker.job_dir(job_id) / "shim.json").read_bytes()

    def send(self, version: str = "0.2.0", **changes: str) -> WantedRelease:
        """Roll out a release that is this one, but for its version and what is appended to modules, by path with `__`."""
        return self.central.release(make_tree(self.central, version, changes), version)

    def await_running(self, wanted: WantedRelease) -> None:
        eventually(lambda: self.central.running_release("w1") == wanted.tree.digest, timeout_s=120)
        eventually(lambda: self.held().phase is ReleasePhase.RUNNING)
        eventually(lambda: self.version() == wanted.version, timeout_s=120)

    def version(self) -> str:
        """Return the version of the release that has opened the session."""
        session = self.central.worker("w1").session
        return session.facts.version if session else ""

    def await_phase(self, wanted: WantedRelease, phase: ReleasePhase) -> str:
        """Return the detail."""
        eventually(lambda: (self.held().serial, self.held().phase) == (wanted.serial, phase), timeout_s=120)
        return self.held().detail

    def held(self) -> HeldRelease:
        return self.central.held_release("w1") or HeldRelease(0, "0" * 64, ReleasePhase.PREPARING)


def make_tree(central: FakeCentral, version: str, changes: dict[str, str]) -> TreeRef:
    files = {
        "release.json": json.dumps({"format": 1, "version": version, "python": f"3.{sys.version_info[1]}"}).encode(),
        # The dependencies of this environment. Its own .pth files, which name the checkout, are not read.
        "site-packages/dependencies.pth": f"{sysconfig.get_paths()['purelib']}\n".encode(),
    }
    for package in (airflow_remote_worker, airflow_remote_protocol):
        root = Path(str(package.__file__)).parent
        for path in root.rglob("*.py"):
            files[f"site-packages/{root.name}/{path.relative_to(root)}"] = path.read_bytes()
    files[f"{WORKER}/shim/launch.py"] = FAKE_RUNTIME.read_bytes()
    files[f"{WORKER}/__init__.py"] = f'__version__ = "{version}"\n'.encode()
    for name, text in changes.items():
        files[f"{WORKER}/{name.replace('__', '/')}.py"] += text.encode()
    return central.code.publish(files)


def test_a_worker_changes_to_a_release_and_back_while_a_task_runs(site: Site) -> None:
    process = site.start()
    job_id = site.begin_job()
    shim = site.shim(job_id)
    first = site.send("0.2.0")
    site.await_running(first)
    second = site.send("0.3.0")
    site.await_running(second)
    back = site.central.release(first.tree, "0.2.0")
    site.await_running(back)
    assert back.serial == 3
    assert process.poll() is None
    assert "releases" in psutil.Process(process.pid).cmdline()[0]
    assert site.shim(job_id) == shim
    site.finish(job_id)
    assert site.central.worker("w1").clones_seen == 0


def test_jobs_run_in_a_release_and_it_starts_again_after_a_kill(site: Site) -> None:
    process = site.start()
    wanted = site.send()
    site.await_running(wanted)
    job_id = site.begin_job()
    spec = json.loads((site.worker.job_dir(job_id) / "job.json").read_bytes().partition(b"\n")[0])
    assert spec["release"] == wanted.tree.digest
    process.kill()
    process.wait()
    site.start()
    site.await_running(wanted)
    site.finish(job_id)


LOST = """from airflow_remote_worker import errors
    async def lost(self, request):
        raise errors.Unreachable("no way")
    Link.open_session = lost"""
ON_ANSWER = "\n\ndef fail(self):\n    {}\n\n\nReleaseKeeper.note_answer = fail\n"
"""Code of the keeper that runs once central has answered a poll."""
BROKEN = {
    "it can't be imported": ({"daemon": ON_TRIAL.format("import no_such_module")}, "No module named 'no_such_module'"),
    "it can't connect": ({"link__client": ON_TRIAL.format(LOST)}, "it did not reach central within 12 s"),
    "it raises an error once it has connected": ({"update__keeper": ON_ANSWER.format("raise KeyError('x')")}, "KeyError: 'x'"),
    "it ends once it has connected": ({"update__keeper": ON_ANSWER.format("import os; os._exit(9)")}, "it ended with 9"),
    "it ends by a segmentation fault": (
        {"update__keeper": ON_ANSWER.format("import ctypes; ctypes.string_at(0)")},
        "it was ended by SIGSEGV during its trial",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_release_is_given_up_and_the_one_before_goes_on(site: Site, how: str) -> None:
    changes, reason = BROKEN[how]
    process = site.start(**{"UPDATE__PROVE_WITHIN_S": "12"} if changes.get("link__client") else {})
    good = site.send()
    site.await_running(good)
    job_id = site.begin_job()
    shim = site.shim(job_id)
    bad = site.send("0.3.0", **changes)
    assert reason in site.await_phase(bad, ReleasePhase.FAILED)
    assert site.central.running_release("w1") == good.tree.digest
    assert process.poll() is None
    assert site.shim(job_id) == shim
    again = site.worker.enqueue("run\nexit 0")
    site.central.wait_for_state(again, JobState.SUCCEEDED, timeout_s=60)
    next_one = site.send("0.4.0")
    site.await_running(next_one)
    site.finish(job_id)


def test_a_release_that_fails_its_self_test_never_runs(site: Site) -> None:
    site.start()
    boot_id = site.central.worker("w1").boot_id
    bad = site.send("0.3.0", loops__poll="\nimport no_such_module\n")
    reason = "its self-test ended with 1: airflow_remote_worker.daemon can't be imported: ModuleNotFoundError"
    assert site.await_phase(bad, ReleasePhase.FAILED).startswith(reason)
    assert site.central.worker("w1").boot_id == boot_id
    assert site.central.running_release("w1") == ""


def test_a_release_that_hangs_is_ended_when_its_time_is_up(site: Site) -> None:
    process = site.start(UPDATE__PROVE_WITHIN_S="8")
    job_id = site.begin_job()
    bad = site.send("0.3.0", daemon=ON_TRIAL.format("__import__('time').sleep(1000)"))
    assert "did not reach central within 8 s" in site.await_phase(bad, ReleasePhase.FAILED)
    assert process.poll() is None
    assert site.central.running_release("w1") == ""
    site.finish(job_id)


def test_an_outage_during_a_trial_is_not_held_against_the_release(site: Site, tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    site.start(UPDATE__PROVE_WITHIN_S="10")
    job_id = site.begin_job()
    # The first trial shows that it has begun, and waits for central to go down.
    wait = f"os.path.exists({str(reached)!r}) or (open({str(reached)!r}, 'w').close(), __import__('time').sleep(1))"
    wanted = site.send("0.2.0", daemon=ON_TRIAL.format(wait))
    eventually(reached.exists, timeout_s=120)
    site.central.go_down()
    eventually(lambda: len(trials(site)) == 0 and "serving" in status(site).get("phase", ""), timeout_s=120)
    started = eventually(lambda: status(site)["trouble"] and float(str(status(site)["started_at"])))
    eventually(lambda: time.time() > started + 12)
    site.central.come_back()
    site.await_running(wanted)
    site.finish(job_id)


def test_a_stop_during_a_trial_ends_both_and_the_next_start_tries_again(site: Site, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    process = site.start()
    wait = f"open({str(begun)!r}, 'w').close(); __import__('time').sleep(1.5)"
    wanted = site.send("0.2.0", daemon=ON_TRIAL.format(wait))
    eventually(begun.exists, timeout_s=120)
    (trial,) = trials(site)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert not is_running(trial.pid)
    site.start()
    site.await_running(wanted)


def test_a_trial_dies_with_the_process_that_tries_it(site: Site, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    process = site.start()
    wanted = site.send("0.2.0", daemon=ON_TRIAL.format(f"open({str(begun)!r}, 'w').close(); __import__('time').sleep(1.5)"))
    eventually(begun.exists, timeout_s=120)
    (trial,) = trials(site)
    process.kill()
    process.wait()
    eventually(lambda: not is_running(trial.pid))
    site.start()
    site.await_running(wanted)


def test_a_release_whose_files_were_removed_is_repaired_by_the_installed_one(site: Site) -> None:
    process = site.start()
    wanted = site.send()
    site.await_running(wanted)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == EXIT_OK
    (site.worker.state.code / "trees" / wanted.tree.digest / "files" / WORKER / "daemon.py").unlink()
    site.start()
    site.await_running(wanted)


def test_a_site_that_accepts_no_releases_says_so(site: Site) -> None:
    site.start(UPDATE__ACCEPT="off")
    wanted = site.send()
    assert site.await_phase(wanted, ReleasePhase.REFUSED) == "update.accept is off"
    assert not site.central.requests_to("/pack")


def trials(site: Site) -> list[psutil.Process]:
    assert site.process is not None
    children = psutil.Process(site.process.pid).children()
    return [child for child in children if is_running(child.pid) and "run" in child.cmdline()]


def status(site: Site) -> dict[str, object]:
    try:
        return site.worker.daemon_status()
    except (OSError, ValueError):
        return {}
