"""The whole daemon on a machine without a runtime: it runs jobs in what central sends. The packages are a fake runtime's."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from airflow_remote_protocol.messages import JobKind, RuntimePhase, RuntimeRef
from airflow_remote_protocol.states import JobState
from airflow_remote_worker import daemon as daemon_module
from airflow_remote_worker.code import bundles, interpreter
from airflow_remote_worker.code.trust import Trust
from airflow_remote_worker.config import Config, RuntimeConfig
from airflow_remote_worker.jobs import launcher
from airflow_remote_worker.jobs import runtimes as runtimes_module
from airflow_remote_worker.local import job_files
from airflow_remote_worker.state.free_space import NoRoom
from airflow_remote_worker.testing.code import keep_raw, slow
from airflow_remote_worker.testing.fake_central import FakeCentral

from .conftest import FAKE_RUNTIME, RunningWorker, eventually, is_running, no_signals

pytestmark = pytest.mark.timeout(120)

OF_THE_FAKE = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
"""The fake runtime needs packages of this environment."""


@pytest.fixture
def bare(central: FakeCentral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningWorker]:
    """A worker whose machine has no runtime."""
    central.code.encode = keep_raw
    monkeypatch.setattr(launcher, "LAUNCHER", FAKE_RUNTIME)
    monkeypatch.setattr(daemon_module, "daemon_signals", no_signals)
    monkeypatch.setattr(runtimes_module, "RETRY_FLOOR_S", 0.2)
    worker = RunningWorker(central, tmp_path, runtime=RuntimeConfig(env=OF_THE_FAKE))
    worker.join()
    yield worker
    worker.detach()
    worker.end_processes()


def roll(
    central: FakeCentral, *, name: str = "default", queue: str = "q", more: dict[str, bytes] | None = None, **env: str
) -> RuntimeRef:
    """Build the next serial of a runtime, and roll it."""
    about = {"format": 1, "name": name, "python": f"3.{sys.version_info[1]}", "env": env}
    files = {"runtime.json": json.dumps(about).encode(), "site-packages/a_package.py": f"x = {time.time_ns()}".encode()}
    return central.roll(queue, central.code.publish({**files, **(more or {})}), name)


def held(central: FakeCentral) -> dict[str, RuntimePhase]:
    return {one.tree: one.phase for one in central.runtimes("w1")}


def await_ready(central: FakeCentral, ref: RuntimeRef) -> None:
    eventually(lambda: held(central).get(ref.tree.digest) is RuntimePhase.READY, timeout_s=90)


def events(central: FakeCentral, job_id: str) -> list[str]:
    return [json.loads(line)["event"] for line in central.log_bytes(job_id).splitlines()]


def run(central: FakeCentral, worker: RunningWorker, script: str) -> str:
    job_id = worker.enqueue(script)
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=90)
    return job_id


def zygotes(worker: RunningWorker) -> dict[str, int]:
    runtimes = worker.daemon_status()["runtimes"]
    return {one["tree"]: one["pid"] for one in runtimes if one["pid"]}


def test_a_machine_without_a_runtime_runs_jobs_in_central_s(central: FakeCentral, bare: RunningWorker) -> None:
    ref = roll(central, more={"plugins/a_plugin.py": b"", "config/airflow_local_settings.py": b""}, COLOUR="red")
    bare.start()
    job_id = run(central, bare, "run\nenv COLOUR\nenv AIRFLOW__CORE__PLUGINS_FOLDER\nenv PYTHONPATH\nexit 0")
    tree = bare.state.code / "trees" / ref.tree.digest / "files"
    colour, plugins, path = events(central, job_id)
    assert colour == "COLOUR=red"
    assert plugins == f"AIRFLOW__CORE__PLUGINS_FOLDER={tree / 'plugins'}"
    assert path.endswith(f"{os.pathsep}{tree / 'config'}")
    venv = bare.state.code / "runtimes" / ref.tree.digest / "venv"
    assert json.loads(central.log_bytes(job_id).splitlines()[0])["python"] == str(venv / "bin" / "python")
    assert central.job(job_id).runtime == ref
    (found,) = central.runtimes("w1")
    assert (found.phase, found.task_sdk, found.detail) == (RuntimePhase.READY, "1.3.0", "")
    assert central.runtime("w1") is None, "it has no runtime of its own to report"
    assert central.inventory("w1") == [], "a runtime is no code of a bundle"
    session = central.worker("w1").session
    assert session is not None
    assert session.facts.platform == interpreter.find(Config(state=Path("state"))).platform != ""


def test_without_any_runtime_the_status_names_the_remedy_and_no_job_is_taken(central: FakeCentral, bare: RunningWorker) -> None:
    bare.start()
    text = "airflow remote runtimes build default --platform cp3"
    eventually(lambda: bare.state.status_path.exists() and text in bare.daemon_status()["runtime_trouble"])
    job_id = bare.enqueue("run\nexit 0")
    ref = roll(central)
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=30)
    assert central.job(job_id).runtime == ref
    assert central.job(job_id).declines == []
    eventually(lambda: bare.daemon_status()["runtime_trouble"] == "")


def test_two_runtimes_serve_side_by_side(tmp_path: Path, central: FakeCentral, bare: RunningWorker) -> None:
    central.worker("w1").queues.append("gpu")
    one, two = roll(central, COLOUR="red"), roll(central, name="gpu", queue="gpu", COLOUR="blue")
    bare.start()
    await_ready(central, one)
    await_ready(central, two)
    (bare.bundle / "a_dag.py").write_text("run\nenv COLOUR\nexit 0")
    jobs = [central.enqueue(queue) for queue in ("q", "gpu", "q", "gpu")]
    for job_id in jobs:
        central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=30)
    assert [events(central, job_id) for job_id in jobs] == [["COLOUR=red"], ["COLOUR=blue"]] * 2
    eventually(lambda: len(zygotes(bare)) == 2)


def test_a_broken_runtime_does_not_stop_the_jobs_of_another(tmp_path: Path, central: FakeCentral, bare: RunningWorker) -> None:
    central.worker("w1").queues.append("gpu")
    broken = tmp_path / "broken"
    broken.write_text("libfoo.so is missing")
    good, bad = roll(central), roll(central, name="gpu", queue="gpu", FAKE_CANARY=str(broken))
    bare.start()
    await_ready(central, good)
    eventually(lambda: held(central).get(bad.tree.digest) is RuntimePhase.FAILED)
    (found,) = (one for one in central.runtimes("w1") if one.tree == bad.tree.digest)
    assert "libfoo.so is missing" in found.detail
    waits = central.enqueue("gpu")
    run(central, bare, "run\nexit 0")
    assert central.job_state(waits) == "queued"
    assert bare.daemon_status()["runtime_trouble"] == ""


def test_jobs_that_fail_before_they_begin_stop_only_their_own_runtime(central: FakeCentral, bare: RunningWorker) -> None:
    central.worker("w1").queues.append("gpu")
    good, bad = roll(central), roll(central, name="gpu", queue="gpu")
    bare.start()
    await_ready(central, good)
    await_ready(central, bad)
    (bare.bundle / "a_dag.py").write_text("run\nunborn 1")
    for job_id in [central.enqueue("gpu") for _ in range(3)]:
        central.wait_for_state(job_id, JobState.FAILED, timeout_s=30)
    eventually(lambda: held(central)[bad.tree.digest] is RuntimePhase.PREPARING)
    (found,) = (one for one in central.runtimes("w1") if one.tree == bad.tree.digest)
    assert "the last 3 jobs failed before their own code began" in found.detail
    run(central, bare, "run\nexit 0")


def test_a_new_runtime_takes_over_while_a_job_of_the_old_one_runs(central: FakeCentral, bare: RunningWorker) -> None:
    old = roll(central, COLOUR="red")
    bare.start()
    running = bare.enqueue("run\nenv COLOUR\nawait {}\nenv COLOUR\nexit 0".format(bare.bundle / "go"))
    central.wait_for_state(running, JobState.RUNNING, timeout_s=30)
    (zygote,) = eventually(lambda: zygotes(bare)).values()
    new = roll(central, COLOUR="blue")
    await_ready(central, new)
    assert events(central, run(central, bare, "run\nenv COLOUR\nexit 0")) == ["COLOUR=blue"]
    eventually(lambda: not is_running(zygote))
    eventually(lambda: set(zygotes(bare)) == {new.tree.digest})
    assert (bare.state.code / "trees" / old.tree.digest).exists(), "a job uses it"
    assert held(central) == {new.tree.digest: RuntimePhase.READY, old.tree.digest: RuntimePhase.READY}, (
        "it is kept for a rollback"
    )
    (bare.bundle / "go").touch()
    central.wait_for_state(running, JobState.SUCCEEDED, timeout_s=30)
    assert events(central, running) == ["COLOUR=red", "COLOUR=red"]


def test_the_old_runtime_serves_until_the_new_one_is_ready_and_after_a_failure(
    tmp_path: Path, central: FakeCentral, bare: RunningWorker
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("no")
    roll(central, COLOUR="red")
    bare.start()
    run(central, bare, "run\nexit 0")
    bad = roll(central, COLOUR="blue", FAKE_CANARY=str(broken))
    eventually(lambda: held(central).get(bad.tree.digest) is RuntimePhase.FAILED, timeout_s=30)
    assert events(central, run(central, bare, "run\nenv COLOUR\nexit 0")) == ["COLOUR=red"]
    back = central.roll_back()
    assert events(central, run(central, bare, "run\nenv COLOUR\nexit 0")) == ["COLOUR=red"]
    await_ready(central, back)
    eventually(lambda: bad.tree.digest not in held(central))
    assert central.requests_to(f"trees/{back.tree.digest}/pack") == central.requests_to(f"trees/{back.tree.digest}/pack")[:1]


def test_a_restart_needs_no_transfer_and_adopts_the_job_of_an_older_runtime(central: FakeCentral, bare: RunningWorker) -> None:
    old = roll(central, COLOUR="red")
    bare.start()
    running = bare.enqueue("run\nawait {}\nenv COLOUR\nexit 0".format(bare.bundle / "go"))
    central.wait_for_state(running, JobState.RUNNING, timeout_s=30)
    bare.detach()
    new, last = roll(central, COLOUR="blue"), roll(central, COLOUR="green")
    before = len(central.requests_to("/pack"))
    bare.start()
    await_ready(central, last)
    assert len(central.requests_to("/pack")) == before + 1, "the newest only"
    assert new.tree.digest not in held(central)
    assert (bare.state.code / "trees" / old.tree.digest).exists()
    (bare.bundle / "go").touch()
    central.wait_for_state(running, JobState.SUCCEEDED, timeout_s=30)
    assert events(central, running) == ["COLOUR=red"]
    bare.detach()
    bare.start()
    run(central, bare, "run\nexit 0")
    assert len(central.requests_to("/pack")) == before + 1


def test_kill_9_while_a_job_of_the_old_runtime_runs(central: FakeCentral, bare: RunningWorker) -> None:
    roll(central, COLOUR="red")
    process = bare.start_process()
    running = bare.enqueue("run\nawait {}\nenv COLOUR\nexit 0".format(bare.bundle / "go"))
    central.wait_for_state(running, JobState.RUNNING, timeout_s=30)
    new = roll(central, COLOUR="blue")
    await_ready(central, new)
    process.kill()
    process.wait()
    bare.start()
    await_ready(central, new)
    (bare.bundle / "go").touch()
    central.wait_for_state(running, JobState.SUCCEEDED, timeout_s=30)
    assert events(central, running) == ["COLOUR=red"]
    assert events(central, run(central, bare, "run\nenv COLOUR\nexit 0")) == ["COLOUR=blue"]


def test_kill_9_at_any_moment_of_the_preparation_leaves_nothing_that_the_next_start_trusts(
    central: FakeCentral, bare: RunningWorker
) -> None:
    ref = roll(central, more={f"site-packages/m{n}.py": b"def f():\n    return 1\n" * 200 for n in range(300)})
    for after_s in (0.3, 0.5, 0.7, 0.9, 1.1, 1.4, 1.8):
        process = bare.start_process()
        time.sleep(after_s)
        process.kill()
        process.wait()
    bare.start()
    run(central, bare, "run\nexit 0")
    path = bare.state.code / "runtimes"
    assert [entry.name for entry in path.iterdir()] == [ref.tree.digest]
    compiled = list((bare.state.code / "trees" / ref.tree.digest / "files" / "site-packages" / "__pycache__").glob("m*.pyc"))
    assert len(compiled) == 300


def test_a_full_disk_is_reported_with_the_remedy_and_tried_again(
    central: FakeCentral, bare: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    make_room = bundles.BundleCode._make_room

    async def no_room(self: bundles.BundleCode, needed: int) -> None:
        if full:
            raise NoRoom("disk full: code needs 100 MB; make room there, or set code.path")
        await make_room(self, needed)

    monkeypatch.setattr(bundles.BundleCode, "_make_room", no_room)
    ref = roll(central)
    bare.start()
    eventually(lambda: held(central).get(ref.tree.digest) is RuntimePhase.FAILED)
    (found,) = central.runtimes("w1")
    assert "disk full: code needs 100 MB; make room there" in found.detail
    full = False
    await_ready(central, ref)
    run(central, bare, "run\nexit 0")


def test_a_damaged_file_is_repaired_before_the_next_job(
    central: FakeCentral, bare: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "CHECK_EVERY_S", 0.0)
    ref = roll(central, more={"site-packages/deep/module.py": b"y = 1\n"})
    bare.start()
    run(central, bare, "run\nexit 0")
    path = bare.state.code / "trees" / ref.tree.digest / "files" / "site-packages" / "deep" / "module.py"
    path.chmod(0o644)
    path.write_bytes(b"y = 2\n# changed by a task\n")
    run(central, bare, "run\nexit 0")
    assert path.read_bytes() == b"y = 1\n"
    assert len(central.requests_to("/blobs")) == 1


def test_an_environment_that_was_removed_is_made_again_by_the_next_start(central: FakeCentral, bare: RunningWorker) -> None:
    ref = roll(central)
    bare.start()
    run(central, bare, "run\nexit 0")
    bare.detach()
    shutil.rmtree(bare.state.code / "runtimes" / ref.tree.digest / "venv" / "bin")
    bare.start()
    run(central, bare, "run\nexit 0")
    assert len(central.requests_to("/pack")) == 1


def test_an_unwanted_runtime_s_fetch_ends(central: FakeCentral, bare: RunningWorker) -> None:
    central.code.always = slow(50_000)
    roll(central, more={"data.bin": os.urandom(3_000_000)})
    bare.start()
    eventually(lambda: any(one.detail.startswith("code ") for one in central.runtimes("w1")), timeout_s=20)
    central.code.always = None
    ref = roll(central)
    run(central, bare, "run\nexit 0")
    assert list(held(central)) == [ref.tree.digest]


def test_central_away_is_no_failure_of_the_runtime(central: FakeCentral, bare: RunningWorker) -> None:
    central.code.always = slow(50_000)
    ref = roll(central, more={"data.bin": os.urandom(600_000)})
    bare.start()
    eventually(lambda: central.requests_to("/pack"))
    central.go_down()
    time.sleep(1.0)
    central.code.always = None
    central.come_back()
    await_ready(central, ref)
    assert RuntimePhase.FAILED not in held(central).values()


def test_a_runtime_for_another_python_is_refused_with_the_reason(central: FakeCentral, bare: RunningWorker) -> None:
    about = {"format": 1, "python": "3.9"}
    ref = central.roll("q", central.code.publish({"runtime.json": json.dumps(about).encode()}))
    bare.start()
    eventually(lambda: held(central).get(ref.tree.digest) is RuntimePhase.FAILED)
    (found,) = central.runtimes("w1")
    assert found.detail.startswith("it was built for Python 3.9, and ")


def test_a_runtime_that_the_site_does_not_accept_is_not_fetched(
    central: FakeCentral, bare: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Trust, tree: str, kind: str, name: str) -> str:
        return f"the {kind} {name} has no signature" if tree == ref.tree.digest else ""

    monkeypatch.setattr(Trust, "check", refuse)
    ref = roll(central)
    bare.start()
    eventually(lambda: held(central).get(ref.tree.digest) is RuntimePhase.FAILED)
    assert [one.detail for one in central.runtimes("w1")] == ["the runtime default has no signature"]
    assert not central.requests_to("/pack")


def test_settings_of_central_reach_the_jobs_of_every_runtime(central: FakeCentral, bare: RunningWorker) -> None:
    central.set_task_settings({"core.default_timezone": "Europe/Berlin"})
    roll(central)
    bare.start()
    run(central, bare, "run\nexit 0")
    eventually(lambda: "Berlin" in _settings_of_zygote(bare))
    central.set_task_settings({"core.default_timezone": "Asia/Tokyo"})
    run(central, bare, "run\nexit 0")
    eventually(lambda: "Tokyo" in _settings_of_zygote(bare))


def _settings_of_zygote(worker: RunningWorker) -> str:
    try:
        return "".join(psutil.Process(pid).environ().get(job_files.TASK_SETTINGS, "") for pid in zygotes(worker).values())
    except psutil.NoSuchProcess:  # the status names the previous one
        return ""


def test_a_site_that_installs_a_runtime_itself_returns_the_jobs_of_the_other(
    central: FakeCentral, bare: RunningWorker, tmp_path: Path
) -> None:
    roll(central)
    bare.start()
    run(central, bare, "run\nexit 0")
    bare.detach()
    own = RunningWorker(central, tmp_path)
    own.start()
    job_id = run(central, own, "run\nexit 0")
    assert central.job(job_id).runtime is None
    assert central.runtime("w1") is not None
    own.detach()


def test_other_users_reach_the_runtime(central: FakeCentral, bare: RunningWorker) -> None:
    before = os.umask(0o077)
    try:
        script = b"[console_scripts]\na-program = a_package:main\n"
        ref = roll(central, more={"site-packages/a-1.dist-info/entry_points.txt": script})
        bare.start()
        await_ready(central, ref)
    finally:
        os.umask(before)
    for root in (bare.state.code / "runtimes", bare.state.code / "trees"):
        for path in root.rglob("*"):
            if path.is_symlink() or path.name in ("ready.json", "about.json", "manifest"):
                continue
            needed = 0o555 if path.is_dir() else 0o444
            assert stat.S_IMODE(path.stat().st_mode) & needed == needed, path
    program = bare.state.code / "runtimes" / ref.tree.digest / "venv" / "bin" / "a-program"
    assert os.access(program, os.X_OK)


def test_trigger_offers_and_callbacks_name_their_runtime_too(central: FakeCentral, bare: RunningWorker) -> None:
    ref = roll(central)
    bare.start()
    await_ready(central, ref)
    workload = {"path": "a.b", "kwargs": {}, "dag_rel_path": "a_dag.py", "ti": {"id": "x"}, "callback_id": "x"}
    job_id = central.enqueue(
        "q", kind=JobKind.CALLBACK, workload={**workload, "bundle": {"name": "dags-folder", "version": None}}
    )
    eventually(lambda: central.job(job_id).runtime == ref)
    assert central.job(job_id).declines == []
