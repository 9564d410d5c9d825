"""Topic suite: after `lost_after`, central marks the job as lost and Airflow retries it; its worker has stopped it before.

A report that arrives later is recorded in the audit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import NewWorker
from testkit.network.fault_proxy import FaultProxy
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow

LOST_AFTER_S = 30


@pytest.mark.parametrize(("dag", "queue"), [("silent_by_task", "cable"), ("silent_by_queue", "ships")])
def test_after_lost_after_airflow_retries_and_the_old_try_has_ended_with_a_complete_log(
    dag: str, queue: str, central: Airflow, new_worker: NewWorker, tmp_path: Path
) -> None:
    if dag == "silent_by_queue":
        central.remote_change("PUT", "queues", queue, "rules", lost_after_s=LOST_AFTER_S)
    with FaultProxy(central.url) as cable:
        at_sea = new_worker(central, f"at-sea-{queue}", queues=queue, url=cable.url)
        run = central.trigger(dag, {"directory": str(tmp_path)})
        wait_until(lambda: len(_beats(tmp_path, 1)) >= 8, timeout_s=90, what="the first try writes beats", every_s=0.2)

        cable.black_hole()
        new_worker(central, f"ashore-{queue}", queues=queue)
        (lost,) = wait_until(  # type: ignore[misc]
            lambda: [job for job in central.jobs(run) if job["state"] == "lost"],
            timeout_s=90,
            what="the job is lost",
            every_s=0.3,
        )

        pid, last_beat = _beats(tmp_path, 1)[-1]
        assert last_beat < lost["ended_at"].timestamp(), "the old try ended before central marked the job as lost"
        assert not _is_alive(pid)
        assert central.wait_for_run(dag, run) == "success"
        assert central.task_instance(dag, run, "beat")["try_number"] == 2
        assert _beats(tmp_path, 2)[0][1] > last_beat

        cable.heal()
        cable.cut()
        (entry,) = wait_until(  # type: ignore[misc]
            lambda: central.query("SELECT * FROM remote_audit WHERE kind = 'late-report' AND job_id = :id", id=lost["id"]),
            timeout_s=60,
            what="the late report is in the audit",
            every_s=0.3,
        )
    assert entry["worker_name"] == at_sea.name and "reported as stopped" in entry["detail"]
    (old,) = [job for job in central.jobs(run) if job["id"] == lost["id"]]
    assert (old["state"], old["outcome"]) == ("lost", None), "the late report has changed nothing"
    (local,) = at_sea.task_logs()
    assert central.log_file(dag, run, "beat", 1).read_bytes() == local.read_bytes()
    assert f"beat {len(_beats(tmp_path, 1)) - 1} of try 1" in central.task_log(dag, run, "beat", 1)
    kinds = {row["kind"] for row in central.remote_api("audit", job_id=lost["id"])}
    assert kinds == {"job-lost", "late-report"}


def test_a_misspelled_option_is_an_import_error_with_a_suggestion(central: Airflow) -> None:
    def import_errors() -> list[str]:
        errors: list[dict[str, Any]] = central.api("GET", "importErrors")["import_errors"]
        return [error["stack_trace"] for error in errors if error["filename"].endswith("misspelled.py")]

    (why,) = wait_until(import_errors, timeout_s=30, what="the import error exists")  # type: ignore[misc]
    assert "'lost_aftr'" in why and "did you mean 'lost_after'" in why


def _beats(directory: Path, try_number: int) -> list[tuple[int, float]]:
    """Return (pid, wall clock) of each beat of a try."""
    file = directory / f"try-{try_number}"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(pid), float(at)) for pid, at in map(str.split, lines)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
