"""The self-test, of this release and of another one."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest
from airflow_remote_worker.config import RuntimeConfig
from airflow_remote_worker.errors import Unreachable
from airflow_remote_worker.testing.fake_central import FakeCentral
from airflow_remote_worker.update import self_test
from airflow_remote_worker.update.self_test import SelfTestFailed, ask

from ..conftest import RunningWorker, eventually, make_offer


def answer(text: str, code: int) -> list[str]:
    return [sys.executable, "-c", f"import sys; print({text!r}, file=sys.stderr); sys.exit({code})"]


def test_the_answer_of_another_release() -> None:
    ask(answer("all is well", 0))
    with pytest.raises(SelfTestFailed, match="its self-test ended with 1: daemon can't be imported"):
        ask(answer("airflow-remote-worker: daemon can't be imported", 1))
    with pytest.raises(Unreachable, match="no way to central"):
        ask(answer("airflow-remote-worker: no way to central", self_test.EXIT_LATER))


def test_a_self_test_that_does_not_end_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "ANSWER_WITHIN_S", 0.5)
    with pytest.raises(SelfTestFailed, match="did not end"):
        ask([sys.executable, "-c", "import time; time.sleep(1000)"])


def test_a_whole_self_test_beside_a_daemon(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog one\nsleep 60")
    eventually(lambda: b"one" in central.log_bytes(job_id))
    imported, read, reached, hosted = anyio.run(self_test.run, worker.config, worker.state)
    assert imported.endswith("modules can be imported")
    assert read.endswith("can be read: 1 open jobs")
    assert reached == f"central answers w1 at {central.url}"
    assert hosted == f"a built-in task ran in {sys.executable} (Task SDK 1.3.0)"
    assert not list(worker.state.root.glob("self-test-*"))
    central.end_task(job_id)


def test_notes_that_this_release_cannot_read_are_a_failure_and_stay(central: FakeCentral, worker: RunningWorker) -> None:
    offer = make_offer()
    path = worker.state.jobs / f"{offer.job_id}.{offer.epoch}"
    path.mkdir(parents=True)
    (path / "offer.json").write_bytes(b"from the future")
    with pytest.raises(SelfTestFailed, match="the notes of a job can't be read by this release"):
        anyio.run(self_test.run, worker.config, worker.state)
    assert (path / "offer.json").exists()


def test_an_unreachable_central_is_an_error_of_its_own(central: FakeCentral, worker: RunningWorker) -> None:
    central.go_down()
    with pytest.raises(Unreachable):
        anyio.run(self_test.run, worker.config, worker.state)


def test_without_a_runtime_no_task_is_tried(central: FakeCentral, tmp_path: Path) -> None:
    bare = RunningWorker(central, tmp_path, runtime=RuntimeConfig())
    bare.join()
    assert anyio.run(self_test.run, bare.config, bare.state)[-1] == "no runtime is here yet, so no task was tried"
