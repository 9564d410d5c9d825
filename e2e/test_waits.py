"""Topic suite: triggers of deferred tasks run on a worker of the queue, survive outages, restarts and losses, and fire once."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

FROM_BEFORE = ["from", "before"]


def _deferred(central: Airflow, dag_id: str, run: str, task_id: str = "wait") -> None:
    central.wait_for_task(dag_id, run, task_id, "deferred")
    wait_until(lambda: "running" in _states(central, run), timeout_s=60, what="a worker hosts the trigger")


def _states(central: Airflow, run: str) -> list[str]:
    return [job["state"] for job in central.jobs(run) if job["kind"] == "trigger"]


@pytest.fixture(scope="module")
def fs_default(central: Airflow) -> None:
    """Create the connection that file sensors use."""
    central.api("POST", "connections", json={"connection_id": "fs_default", "conn_type": "fs"})


def test_every_kind_of_wait_ends_with_an_event_of_the_site(
    central: Airflow, worker: Worker, fs_default: None, tmp_path: Path
) -> None:
    run = central.trigger("waits", {"directory": str(tmp_path)})
    for task in ("file", "of_bundle", "of_file", "starts"):
        central.wait_for_task("waits", run, task, "deferred")
    assert central.task_instance("waits", run, "starts")["start_date"] is not None, "it started on its worker"
    for row in central.query("SELECT classpath, kwargs, queue FROM trigger WHERE queue IS NOT NULL"):
        assert (row["classpath"], row["kwargs"]) == ("airflow_remote_provider.placeholder.RunsAtSite", "{}")
    (tmp_path / "go").write_text("press 7")
    assert central.wait_for_run("waits", run) == "success"
    assert central.xcom("waits", run, "of_bundle") == {"event": {"read": "press 7"}, "kept": FROM_BEFORE}
    assert central.xcom("waits", run, "of_file") == {"event": "from the Dag file", "kept": FROM_BEFORE}
    assert central.xcom("waits", run, "ends") == {"ended": "by the trigger"}
    assert central.xcom("waits", run, "starts") == {"read": "press 7"}
    triggers = {job["task_id"] for job in central.jobs(run) if job["kind"] == "trigger"}
    assert triggers == {"file", "of_bundle", "of_file", "ends", "starts", "other_dag"}, (
        "central itself waits for a moment in time"
    )


def test_a_triggers_log_is_part_of_the_tasks_log(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("waits", {"directory": str(tmp_path)})
    central.wait_for_task("waits", run, "of_bundle", "deferred")
    wait_until(
        lambda: f"waiting for {tmp_path}/go" in central.task_log("waits", run, "of_bundle"),
        timeout_s=60,
        what="the trigger's lines are in the log of the waiting task",
    )
    (tmp_path / "go").touch()
    central.wait_for_task("waits", run, "of_bundle", "success")
    wait_until(
        lambda: _in_order(central.task_log("waits", run, "of_bundle"), "before the wait", "waiting for", "after the wait"),
        timeout_s=30,
        what="the log has the lines of the whole task",
    )


def _in_order(text: str, *parts: str) -> bool:
    places = [text.find(part) for part in parts]
    return -1 not in places and places == sorted(places)


def test_a_trigger_reaches_a_server_of_the_site(central: Airflow, worker: Worker) -> None:
    with _server("ready") as url:
        run = central.trigger("waits_for_server", {"url": url})
        assert central.wait_for_run("waits_for_server", run) == "success"
    assert central.xcom("waits_for_server", run, "wait")["event"] == "ready"


@contextlib.contextmanager
def _server(says: str) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(says.encode())

        def log_message(self, *_: Any) -> None:
            """Write no log."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def test_a_trigger_that_raises_fails_its_task_with_its_traceback(central: Airflow, worker: Worker) -> None:
    run = central.trigger("waits_and_fails")
    assert central.wait_for_run("waits_and_fails", run) == "failed"
    log = central.task_log("waits_and_fails", run, "wait")
    assert "the press is broken" in log and "Trigger failed" in log


def test_a_trigger_has_the_grants_of_its_task(central: Airflow, worker: Worker) -> None:
    for name in ("waits_granted", "waits_denied"):
        central.api("POST", "connections", json={"connection_id": name, "conn_type": "http", "login": "ada"})
    run = central.trigger("waits_and_asks")
    assert central.wait_for_run("waits_and_asks", run) == "failed"
    assert central.xcom("waits_and_asks", run, "granted")["event"] == "ada"
    wait_until(
        lambda: "Not granted to this job: connection 'waits_denied'" in central.task_log("waits_and_asks", run, "denied"),
        timeout_s=30,
        what="the denial is in the task's log",
    )


def test_a_listed_class_runs_on_central_and_its_failure_affects_only_its_task(central: Airflow, worker: Worker) -> None:
    """Without the placeholder, an error in its constructor would end a triggerer of Airflow 3.3."""
    central.remote_change("POST", "policies", "default", "allow", code_on_central=["listed_triggers.OnCentral"])
    triggerer = central.process("triggerer").pid
    run = central.trigger("waits_on_central")
    assert central.wait_for_run("waits_on_central", run) == "failed"
    assert central.xcom("waits_on_central", run, "front") == {"event": {"name": "front", "task": "front"}, "kept": FROM_BEFORE}
    log = central.task_log("waits_on_central", run, "nowhere")
    assert "the name 'nowhere' is unknown" in log and "Trigger failed" in log
    assert central.is_running("triggerer") and central.process("triggerer").pid == triggerer
    assert not [job for job in central.jobs(run) if job["kind"] == "trigger"], "no worker got a trigger's job"


@pytest.mark.parametrize("act", ["fail", "clear", "delete"])
def test_a_users_action_on_a_waiting_task_cancels_its_trigger(
    central: Airflow, waiting_worker: Worker, tmp_path: Path, act: str
) -> None:
    run = central.trigger("waits_once", {"directory": str(tmp_path)})
    _deferred(central, "waits_once", run)
    if act == "fail":
        central.set_task_state("waits_once", run, "wait", "failed")
    elif act == "clear":
        central.clear_task("waits_once", run, "wait")
    else:
        central.delete_run("waits_once", run)
    wait_until((tmp_path / "go.killed").exists, timeout_s=20, what="the trigger's on_kill ran")
    if act == "clear":
        (tmp_path / "go").touch()
        assert central.wait_for_run("waits_once", run) == "success"


def test_a_wait_that_takes_too_long_fails_its_task_and_cancels_its_trigger(
    central: Airflow, waiting_worker: Worker, tmp_path: Path
) -> None:
    run = central.trigger("waits_too_long", {"directory": str(tmp_path)})
    assert central.wait_for_run("waits_too_long", run) == "failed"
    assert "Trigger timeout" in central.task_log("waits_too_long", run, "wait")
    wait_until(lambda: _states(central, run) == ["revoked"], timeout_s=40, what="the trigger's job is revoked")
    wait_until(lambda: not list(waiting_worker.state.glob("triggers/*")), timeout_s=40, what="the worker has deleted it")
    assert not (tmp_path / "go.killed").exists(), "no user has acted"


@pytest.fixture(scope="module")
def waiting_worker(central: Airflow, new_worker: NewWorker) -> Worker:
    return new_worker(central, "waits", queues="waits", slots=2)


def test_a_wait_survives_an_outage_and_its_event_arrives_once(central: Airflow, waiting_worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("waits_once", {"directory": str(tmp_path)})
    _deferred(central, "waits_once", run)
    central.stop_process("api-server")
    try:
        (tmp_path / "go").write_text("during the outage")
        wait_until(lambda: _events(waiting_worker), timeout_s=30, what="the event is on the worker's disk")
    finally:
        central.start_api_server()
    assert central.wait_for_run("waits_once", run) == "success"
    assert central.xcom("waits_once", run, "wait") == {"event": {"read": "during the outage"}, "kept": FROM_BEFORE}
    assert [job["state"] for job in central.jobs(run)] == ["succeeded"] * 3, "the task, its trigger, the resumed task"


def _events(worker: Worker) -> list[Path]:
    return list(worker.state.glob("triggers/*/event.json"))


def test_a_wait_survives_the_end_of_the_daemon(central: Airflow, waiting_worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("waits_once", {"directory": str(tmp_path)})
    _deferred(central, "waits_once", run)
    hosts = _hosts(waiting_worker)
    waiting_worker.kill()
    (tmp_path / "go").write_text("while the daemon was dead")
    waiting_worker.start()
    assert central.wait_for_run("waits_once", run) == "success"
    assert central.xcom("waits_once", run, "wait")["event"] == {"read": "while the daemon was dead"}
    assert hosts and set(hosts) & set(_hosts(waiting_worker)), "the process that hosts triggers was adopted"
    [trigger] = [job for job in central.jobs(run) if job["kind"] == "trigger"]
    assert trigger["epoch"] == 1


def _hosts(worker: Worker) -> list[str]:
    return sorted(path.parent.name for path in worker.state.glob("hosts/*/host.json"))


def test_triggers_of_a_host_that_was_killed_start_again(central: Airflow, waiting_worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("waits_once", {"directory": str(tmp_path)})
    _deferred(central, "waits_once", run)
    for pid in _host_pids(waiting_worker):
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: [job["epoch"] for job in central.jobs(run) if job["kind"] == "trigger"] == [2],
        timeout_s=30,
        what="the trigger is hosted again",
    )
    (tmp_path / "go").touch()
    assert central.wait_for_run("waits_once", run) == "success"


def _host_pids(worker: Worker) -> list[int]:
    """Return the processes whose output goes to the log of a trigger host."""
    logs = {str(path.parent / "shim.log") for path in worker.state.glob("hosts/*/host.json")}
    return [pid for pid in worker.stray_pids() if logs & _open_files(pid)]


def _open_files(pid: int) -> set[str]:
    with contextlib.suppress(OSError):
        return {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return set()


def test_triggers_of_a_lost_worker_and_of_a_drained_one_go_to_another(
    central: Airflow, new_worker: NewWorker, tmp_path: Path
) -> None:
    lost = new_worker(central, "waits-lost", queues="waits-two", slots=1)
    run = central.trigger("waits_on_two", {"directory": str(tmp_path)})
    _deferred(central, "waits_on_two", run)
    lost.kill()
    for pid in lost.stray_pids():
        os.kill(pid, signal.SIGKILL)
    drained = new_worker(central, "waits-drained", queues="waits-two", slots=1)
    wait_until(lambda: _hosted_by(central, run) == "waits-drained", timeout_s=120, what="the other worker hosts the trigger")
    assert central.task_instance("waits_on_two", run, "wait")["try_number"] == 1, "the wait does not count as a try"
    last = new_worker(central, "waits-last", queues="waits-two", slots=1)
    drained.drain()
    wait_until(lambda: _hosted_by(central, run) == "waits-last", timeout_s=60, what="the drained worker's trigger has moved")
    (tmp_path / "go").write_text("finally")
    assert central.wait_for_run("waits_on_two", run) == "success"
    assert central.xcom("waits_on_two", run, "wait")["event"] == {"read": "finally"}
    last.stop()


def _hosted_by(central: Airflow, run: str) -> str:
    [job] = [job for job in central.jobs(run) if job["kind"] == "trigger"]
    return str(job["worker_name"]) if job["state"] == "running" else ""


@pytest.mark.timeout(900)
def test_five_hundred_triggers_wait_and_fire_at_once(central: Airflow, new_worker: NewWorker, tmp_path: Path) -> None:
    many = new_worker(central, "waits-many", queues="waits-many", slots=16)
    run = central.trigger("waits_together", {"directory": str(tmp_path)})
    wait_until(lambda: _states(central, run).count("running") == 500, timeout_s=400, what="500 triggers are hosted", every_s=1)
    assert len(_hosts(many)) == 1
    (tmp_path / "go").write_text("all")
    assert central.wait_for_run("waits_together", run, timeout_s=240) == "success"
    assert _states(central, run) == ["succeeded"] * 500
    for task in ("go_on", "end"):
        assert central.xcom("waits_together", run, task, map_index=7)
    many.stop()
