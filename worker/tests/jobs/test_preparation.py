"""The specification for a job's shim, and the reasons why a job can't start."""

from __future__ import annotations

import dataclasses
import errno
import threading
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from airflow_remote_protocol.messages import Bundle, JobKind, TreeRef
from airflow_remote_worker.code.bundles import CodeUnavailable
from airflow_remote_worker.config import AcceptConfig, BundleConfig, Config, QueueConfig
from airflow_remote_worker.jobs import preparation
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.preparation import Declined, Unprepared, locate_code, prepare
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.local.job_files import JobSpec
from airflow_remote_worker.state.free_space import NoRoom
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


class Code:
    """The worker's code, which has one file."""

    def __init__(self, root: Path, error: Exception | None = None) -> None:
        self.root = root
        self.error = error
        self.asked: list[object] = []
        self.rechecked: list[str] = []

    async def ensure(self, ref: TreeRef, bundle: Bundle, holder: object, note: object) -> Path:
        self.asked.append(holder)
        if self.error:
            raise self.error
        return self.root

    def recheck(self, digest: str) -> None:
        self.rechecked.append(digest)


TREE = TreeRef(digest="a" * 64, files=1, bytes=1)


def with_code(site: Site, error: Exception | None = None, **settings: Any) -> tuple[Site, Code]:
    """Return a site without the bundle, to which central sends it."""
    code = Code(site.config.state, error)
    config = msgspec.structs.replace(site.config, bundles={}, queues={}, run_as_user="", **settings)
    return dataclasses.replace(site, config=config, code=code), code  # type: ignore[arg-type]


def test_the_tree_of_the_offer_is_the_job_s_code_and_pinned_by_its_notes(site: Site) -> None:
    site, code = with_code(site)
    spec, job = _prepare(site, TASK | {"bundle": {"name": "b", "version": "v1"}, "code_hash": "f" * 32}, tree=TREE)
    assert (spec.bundle_path, spec.tree) == (str(code.root), TREE.digest)
    assert job.code_source == f"Bundle 'b', version v1, tree {'a' * 12}, sent by central"
    assert (job.site_code, job.code_note) == ("", ""), "with a tree there is no difference to note"
    assert code.asked == [Lease(job.offer.job_id, job.offer.epoch)]


def test_the_site_s_own_bundle_overrides_the_tree(site: Site) -> None:
    code = Code(site.config.state)
    spec, job = _prepare(dataclasses.replace(site, code=code), TASK, tree=TREE)  # type: ignore[arg-type]
    assert (spec.tree, code.asked) == ("", [])
    assert "bundles.b.path" in job.code_source


def test_a_file_that_vanished_from_a_tree_is_looked_for_once_more(site: Site) -> None:
    site, code = with_code(site)
    with pytest.raises(Unprepared, match=r"tree aaaaaaaaaaaa\) has no file 'gone\.py'"):
        _prepare(site, TASK | {"dag_rel_path": "gone.py"}, tree=TREE)
    assert code.rechecked == [TREE.digest]
    assert len(code.asked) == 2


@pytest.mark.parametrize(
    "error", [CodeUnavailable("because"), NoRoom("because"), OSError(errno.ENOSPC, "because"), OSError(errno.EDQUOT, "because")]
)
def test_code_that_can_t_be_had_now_declines_the_offer(site: Site, error: Exception) -> None:
    site, _ = with_code(site, error)
    with pytest.raises(Declined, match="because"):
        _prepare(site, TASK, tree=TREE)


def test_a_disk_that_does_not_answer_names_the_directory_of_code(site: Site) -> None:
    site, _ = with_code(site, TimeoutError())
    with pytest.raises(Unprepared, match=f"{site.config.code_path}"):
        _prepare(site, TASK, tree=TREE)


def test_a_broken_disk_is_not_declined(site: Site) -> None:
    site, _ = with_code(site, OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        _prepare(site, TASK, tree=TREE)


CALLBACK = {"callback_id": "c", "path": "m.f", "kwargs": {}, "dag_rel_path": "a_dag.py", "bundle": {"name": "b"}}
TEST = {"connection_test_id": "1", "connection_id": "vault", "timeout_s": 5}


@pytest.mark.parametrize(
    ("accept", "kind", "workload", "is_accepted"),
    [
        (AcceptConfig(), JobKind.TASK, TASK, True),
        (AcceptConfig(bundles=("a", "[bc]")), JobKind.TASK, TASK, True),
        (AcceptConfig(bundles=("B",)), JobKind.TASK, TASK, False),
        (AcceptConfig(bundles=()), JobKind.TASK, TASK, False),
        (AcceptConfig(dags=("etl_*",)), JobKind.TASK, TASK | {"ti": {"dag_id": "etl_1"}}, True),
        (AcceptConfig(dags=("etl_*",)), JobKind.TASK, TASK | {"ti": {"dag_id": "xetl_1"}}, False),
        (AcceptConfig(dags=("etl_*",)), JobKind.TASK, TASK | {"ti": {}}, False),
        (AcceptConfig(dags=("etl_*",)), JobKind.CALLBACK, CALLBACK, False),
        (AcceptConfig(bundles=("b",)), JobKind.CALLBACK, CALLBACK, True),
        (AcceptConfig(bundles=("x",), dags=("x",)), JobKind.CONNECTION_TEST, TEST, True),
        (AcceptConfig(queues=("x",)), JobKind.CONNECTION_TEST, TEST, False),
        (AcceptConfig(queues=("q",)), JobKind.TASK, TASK, True),
    ],
)
def test_only_accepted_jobs_are_prepared(
    site: Site, accept: AcceptConfig, kind: JobKind, workload: dict[str, Any], is_accepted: bool
) -> None:
    config = msgspec.structs.replace(site.config, accept=accept)
    site = dataclasses.replace(site, config=config)
    if is_accepted:
        _prepare(site, workload, kind=kind)
    else:
        with pytest.raises(Unprepared, match=r"plant-7 does not accept .*accept\.(bundles|dags|queues)"):
            _prepare(site, workload, kind=kind)
