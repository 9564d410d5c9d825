from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.local import boottime, frames, job_files
from airflow_remote_worker.shim.contact import LastContact


def last_contact(now: float, path: Path | str, *, contact_at: float = 1000.0, stop_after_s: float = 100.0) -> frames.Stop | None:
    job = job_files.JobSpec(
        job_id="j",
        key="k",
        socket_path="s",
        worker_name="w",
        queue="q",
        workload=msgspec.Raw(b"{}"),
        bundle_path="",
        stop_after_s=stop_after_s,
        contact_at=contact_at,
        contact_path=str(path),
    )
    return LastContact(job, lambda: now).verdict()


def test_the_time_counts_from_the_contact_that_brought_the_job(tmp_path: Path) -> None:
    assert last_contact(1100.0, tmp_path / "contact") is None
    stop = last_contact(1100.1, tmp_path / "contact")
    assert stop == frames.Stop(reason="superseded", detail="no contact with central for 100 s; it counts this job as lost by now")


def test_later_contacts_are_read_from_the_daemon_s_file(tmp_path: Path) -> None:
    (tmp_path / "contact").write_text("1050.5")
    assert last_contact(1150.0, tmp_path / "contact") is None
    assert last_contact(1151.0, tmp_path / "contact") is not None


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "900.0", "99999999.0"])
def test_implausible_contacts_are_ignored(text: str, tmp_path: Path) -> None:
    (tmp_path / "contact").write_text(text)
    assert last_contact(1100.1, tmp_path / "contact") is not None
    assert last_contact(1099.0, tmp_path / "contact") is None


def test_a_job_of_an_older_daemon_is_not_stopped() -> None:
    assert last_contact(1e9, "") is None


def test_the_daemon_and_its_shims_use_the_same_clock() -> None:
    before = boottime.now()
    assert before <= SystemClock().monotonic() <= boottime.now()
