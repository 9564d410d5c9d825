"""The specification for a job's shim, and the reasons why a job can't start."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from airflow_remote_protocol.messages import JobKind
from airflow_remote_worker.config import BundleConfig, Config, QueueConfig
from airflow_remote_worker.jobs import preparation
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.preparation import Unprepared, locate_code, prepare
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.local.job_files import JobSpec
from airflow_remote_worker.state.spool import JobDir

from ..conftest import make_offer

TASK = {"ti": {"id": "ti-1"}, "dag_rel_path": "a_dag.py", "bundle": {"name": "b", "version": None}, "code_hash": ""}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "a_dag.py").write_text("")
    config = Config(
        state=tmp_path,
        bundles={"b": BundleConfig(path=tmp_path)},
        queues={"q": QueueConfig(run_as_user="press")},
        run_as_user="any",
    )
    return Site(config, "plant-7", tmp_path / "socket", tmp_path / "contact", body_bytes=lambda: 1234)


def _prepare(site: Site, workload: dict[str, Any], **offer: Any) -> tuple[JobSpec, Job]:
    job = Job(
        Lease("job-1", 2),
        make_offer(workload=msgspec.Raw(msgspec.json.encode(workload)), **offer),
        JobDir(site.config.state / "job", Lease("job-1", 2)),
    )

    async def run() -> JobSpec:
        return await prepare(job, site, contact_at=12.5)

    return anyio.run(run), job


def test_the_shim_s_specification_is_complete(site: Site) -> None:
    spec, job = _prepare(site, TASK, queue="q", stop_after_s=99.0)
    assert (spec.job_id, spec.queue, spec.kind, spec.worker_name) == (job.lease.job_id, "q", "task", "plant-7")
    assert (spec.socket_path, spec.contact_path) == (str(site.socket_path), str(site.contact_path))
    assert (spec.contact_at, spec.stop_after_s, spec.body_bytes) == (12.5, 99.0, 1234)
    assert msgspec.json.decode(spec.workload) == TASK
    assert spec.bundle_path == str(site.config.state)


def test_each_job_has_its_own_key(site: Site) -> None:
    keys = {_prepare(site, TASK)[0].key for _ in range(3)}
    assert len(keys) == 3
    assert all(len(key) == 64 for key in keys)


@pytest.mark.parametrize(("queue", "user"), [("q", "press"), ("other", "any")])
def test_the_queue_s_user_overrides_the_worker_s(site: Site, queue: str, user: str) -> None:
    assert _prepare(site, TASK, queue=queue)[0].run_as_user == user


def test_code_that_differs_is_noted_for_the_shim_and_for_the_log(site: Site) -> None:
    spec, job = _prepare(site, TASK | {"code_hash": "f" * 32})
    assert spec.site_code == job.site_code != ""
    assert spec.code_note == job.code_note
    assert "is not the one that central parsed" in job.code_note


def test_a_connection_test_needs_no_code(site: Site) -> None:
    spec, _ = _prepare(site, {"connection_test_id": "1", "connection_id": "vault", "timeout_s": 5}, kind=JobKind.CONNECTION_TEST)
    assert (spec.kind, spec.bundle_path) == ("connection-test", "")


def test_a_workload_that_cant_be_read_names_the_remedy(site: Site) -> None:
    with pytest.raises(Unprepared, match=r"central sent a workload that this worker can't read .*update the older of the two"):
        _prepare(site, {"ti": 7})


def test_a_file_that_is_missing_is_named(site: Site) -> None:
    with pytest.raises(Unprepared, match=r"gone\.py does not exist on worker plant-7"):
        _prepare(site, TASK | {"dag_rel_path": "gone.py"})


def test_a_drive_that_does_not_answer_fails_the_job_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(preparation, "PREPARE_WITHIN_S", 0.05)
    monkeypatch.setattr(preparation, "find_code", lambda offer, site: answer.wait(30))
    offer = make_offer(workload=msgspec.Raw(msgspec.json.encode(TASK)))
    try:
        with pytest.raises(Unprepared, match="plant-7 got no answer from its disk"):
            anyio.run(locate_code, offer, site)
    finally:
        answer.set()
