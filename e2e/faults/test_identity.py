"""Topic suite: a restarted worker takes over at once; a copy of the directory or the whole computer is refused and flagged."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.conftest import NewWorker
from testkit.network.fault_proxy import FaultProxy
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import WORK, Worker

EXIT_REFUSED = 3
PROGRAM = WORK / "worker/bin/airflow-remote-worker"


@pytest.mark.parametrize("machine", ["same", "another"], ids=["with the same machine id", "on another machine"])
def test_a_copy_is_refused_and_flagged_and_the_first_is_not_disturbed(
    machine: str, central: Airflow, new_worker: NewWorker, tmp_path: Path
) -> None:
    name = f"{machine}_machine"
    dag = f"waiting_on_{name}"
    first = new_worker(central, name, queues=name)
    run = central.trigger(dag, {"go": str(tmp_path / "go")})
    central.wait_for_task(dag, run, "hold", "running")
    pid, session = first.pid, first.status()["session"]

    copy = _copy(first, tmp_path / "copy", program=PROGRAM if machine == "same" else _on_another_machine(tmp_path))
    copy.start(wait=False)
    assert copy.wait(timeout_s=60) == EXIT_REFUSED, copy.tail()

    assert (first.pid, first.is_running()) == (pid, True)
    (row,) = [worker for worker in central.remote_cli("workers", "list") if worker["name"] == name]
    assert ("copy" if machine == "same" else "another installation") in row["alarm"]
    assert {entry["kind"] for entry in central.remote_cli("audit", "list", "--worker", name)} >= {"clone"}
    if machine == "another":
        assert first.status()["session"] == session, "the first worker keeps its session"
    else:
        wait_until(lambda: first.status()["session"] not in ("", session), timeout_s=60, what="the first has its session back")
    (tmp_path / "go").touch()
    assert central.wait_for_run(dag, run) == "success"
    assert central.task_instance(dag, run, "hold")["try_number"] == 1
    assert [job["state"] for job in central.jobs(run)] == ["succeeded"]
    first.stop()


def test_a_restarted_daemon_takes_over_although_central_still_has_the_old_connection(
    central: Airflow, new_worker: NewWorker, tmp_path: Path
) -> None:
    with FaultProxy(central.url) as cable:
        worker = new_worker(central, "phoenix", queues="phoenix", url=cable.url)
        run = central.trigger("waiting_on_phoenix", {"go": str(tmp_path / "go")})
        central.wait_for_task("waiting_on_phoenix", run, "hold", "running")
        cable.half_open("requests")  # central is not notified that the old daemon closed its connection
        worker.kill()
        cable.heal()
        sessions = cable.count("POST", "/session$")
        worker.start()
        assert cable.count("POST", "/session$") == sessions + 1, "its first request for a session is granted"
        (tmp_path / "go").touch()
        assert central.wait_for_run("waiting_on_phoenix", run) == "success"
        assert central.task_instance("waiting_on_phoenix", run, "hold")["try_number"] == 1
        assert [row["alarm"] for row in central.remote_cli("workers", "list") if row["name"] == "phoenix"] == [""]
        worker.stop()


def _copy(worker: Worker, directory: Path, *, program: Path) -> Worker:
    """Return a worker on a copy of the first one's disk, made while the first one runs."""
    copy = Worker(directory, name=worker.name, central="unused", token="unused", bundles={}, program=program)
    shutil.rmtree(copy.state)
    shutil.copytree(worker.state, copy.state, ignore=shutil.ignore_patterns("lock", "*.sock", "status.json"))
    return copy


def _on_another_machine(directory: Path) -> Path:
    """Return a program that runs the worker with another machine id."""
    machine_id = directory / "machine-id"
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    script = directory / "elsewhere"
    script.write_text(
        f'#!/bin/sh\nexec unshare -m sh -c \'mount --bind {machine_id} /etc/machine-id && exec {PROGRAM} "$@"\' - "$@"\n'
    )
    script.chmod(0o700)
    tried = subprocess.run(["unshare", "-m", "mount", "--bind", str(machine_id), "/etc/machine-id"], capture_output=True)
    if tried.returncode != 0:
        pytest.skip("needs the right to mount, for another machine id")
    return script
