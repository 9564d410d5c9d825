from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest
from airflow_remote_protocol.messages import JobPhase, Outcome, Report, Stop, StopReason
from airflow_remote_worker.config import BundleConfig, Config
from airflow_remote_worker.jobs import supervisor
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.process import CannotHost
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.jobs.supervisor import Supervisor
from airflow_remote_worker.lease import SITE, Lease
from airflow_remote_worker.local import frames, job_files
from airflow_remote_worker.session import WorkerSession
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.state.spool import ShimRecord, Spool

from ..conftest import HandClock, make_offer

pytestmark = pytest.mark.timeout(30)
LEASE = Lease("a", 1)


class Starter:
    """Pretends to start shims, which end at once, with *result* if any."""

    def __init__(self, result: job_files.Result | None = None, error: Exception | None = None) -> None:
        self.result = result
        self.error = error
        self.started: list[Path] = []

    async def launch(self, job_dir: Path, *, runtime: str = SITE) -> ShimRecord:
        self.started.append(job_dir)
        if self.error:
            raise self.error
        if self.result:
            (job_dir / "result.json").write_bytes(msgspec.json.encode(self.result))
        return ShimRecord(pid=2**22 - 3, start_time=1.0, birth_mark="gone")


class GatewayStub:
    def __init__(self) -> None:
        self.stops: list[frames.Stop] = []

    def open(self, lease: Lease, key: str, job: Job) -> None: ...

    def stop(self, lease: Lease, stop: frames.Stop) -> None:
        self.stops.append(stop)

    def close(self, lease: Lease) -> None: ...


class Bench:
    def __init__(self, state: State, starter: Starter) -> None:
        (state.root / "dags").mkdir(exist_ok=True)
        (state.root / "dags" / "a_dag.py").touch()
        self.spool = Spool(state.jobs, quarantine=state.quarantine)
        self.session = WorkerSession(slots=4)
        self.starter = starter
        self.gateway = GatewayStub()
        config = Config(state=state.root, bundles={"dags-folder": BundleConfig(path=state.root / "dags")})
        site = Site(config, "w1", state.root / "g.sock", state.contact_path)
        self.supervisor = Supervisor(
            site=site, spool=self.spool, session=self.session, starter=starter, gateway=self.gateway, clock=HandClock()
        )

    def run(self, *steps: Callable[[], object]) -> None:
        async def main() -> None:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    await tasks.start(self.supervisor.run)
                    for step in steps:
                        step()
                    for job in list(self.supervisor.jobs.values()):
                        await job.ended.wait()
                    tasks.cancel_scope.cancel()

        anyio.run(main)

    def take(self) -> None:
        self.session.hold(make_offer("a"))
        self.supervisor.take(make_offer("a"))

    @property
    def report(self) -> Report:
        report = self.spool.of(LEASE).report()
        assert report is not None
        return report


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (job_files.Result(exit_code=0, final_state="success"), Outcome.SUCCEEDED),
        (job_files.Result(exit_code=1, final_state="failed"), Outcome.FAILED),
        (job_files.Result(exit_code=-9, final_state="failed", stopped=True), Outcome.STOPPED),
        (None, Outcome.DIED),
    ],
)
def test_the_outcome_follows_from_the_result(state: State, result: job_files.Result | None, outcome: Outcome) -> None:
    bench = Bench(state, Starter(result))
    bench.run(bench.take)
    assert bench.report.outcome is outcome
    assert bench.session.held()[0].phase is JobPhase.ENDED


def test_a_half_written_result_is_not_a_success(state: State) -> None:
    class HalfWriter(Starter):
        async def launch(self, job_dir: Path, *, runtime: str = SITE) -> ShimRecord:
            (job_dir / "result.json").write_text('{"exit_code": 0, "fin')
            return await super().launch(job_dir)

    bench = Bench(state, HalfWriter())
    bench.run(bench.take)
    assert bench.report.outcome is Outcome.DIED
    assert "damaged" in bench.report.reason


def test_a_job_stopped_before_its_start_never_starts(state: State) -> None:
    bench = Bench(state, Starter())
    bench.run(bench.take, lambda: bench.supervisor.stop(Stop("a", 1, StopReason.ENDED)))
    assert bench.starter.started == []
    assert bench.report.outcome is Outcome.STOPPED


def test_a_job_that_can_t_start_is_unprepared_and_its_log_says_why(state: State) -> None:
    bench = Bench(state, Starter(error=CannotHost("no airflow; install it")))
    bench.run(bench.take)
    assert bench.report.outcome is Outcome.UNPREPARED
    assert "no airflow; install it" in bench.spool.of(LEASE).task_log.read_text()


def test_a_damaged_directory_is_put_aside_and_the_others_are_adopted(state: State) -> None:
    bench = Bench(state, Starter(job_files.Result(exit_code=0, final_state="success")))
    bad = bench.spool.of(Lease("b", 1))
    bad.store_offer(make_offer("b"))
    for name in ("offer.json", "offer.json.copy"):
        (bad.path / name).write_text("{")
    bench.spool.of(LEASE).store_offer(make_offer("a"))
    bench.run(bench.supervisor.adopt)
    assert [path.name.rpartition(".")[0] for path in state.quarantine.iterdir() if path.is_dir()] == ["jobs.b.1"]
    assert bench.report.outcome is Outcome.SUCCEEDED


def test_an_adopted_job_with_a_report_is_only_reported(state: State) -> None:
    bench = Bench(state, Starter())
    job = bench.spool.of(LEASE)
    job.store_offer(make_offer("a"))
    job.store_report(Report(outcome=Outcome.FAILED, exit_code=3))
    bench.run(bench.supervisor.adopt)
    assert bench.starter.started == []
    assert bench.report.exit_code == 3
    assert bench.session.held()[0].phase is JobPhase.ENDED


def test_a_known_lease_is_not_run_again(state: State) -> None:
    bench = Bench(state, Starter(job_files.Result(exit_code=0, final_state="success")))
    bench.run(bench.take)
    with pytest.raises(FileExistsError):
        bench.supervisor.take(make_offer("a"))


def test_a_job_whose_daemon_died_before_its_shim_existed_is_started(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HELLO_WITHIN_S", 0)
    bench = Bench(state, Starter(job_files.Result(exit_code=0, final_state="success")))
    _leave_unrecorded(bench)
    phases: list[JobPhase] = []
    bench.run(bench.supervisor.adopt, lambda: phases.append(bench.session.held()[0].phase))
    assert phases == [JobPhase.PREPARING], "which keeps its offer from expiring"
    assert bench.starter.started == [bench.spool.of(LEASE).path]
    assert bench.report.outcome is Outcome.SUCCEEDED


def test_a_job_whose_unrecorded_shim_has_exited_has_died(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HELLO_WITHIN_S", 0)
    bench = Bench(state, Starter())
    _leave_unrecorded(bench)
    bench.spool.of(LEASE).shim_log.touch()
    bench.run(bench.supervisor.adopt)
    assert bench.starter.started == []
    assert bench.report.outcome is Outcome.DIED


def _leave_unrecorded(bench: Bench) -> None:
    """Leave the files of a daemon that ended between the start of a shim and the storage of its process."""
    job_dir = bench.spool.of(LEASE)
    job_dir.store_offer(make_offer("a"))
    job_dir.store_spec(
        job_files.JobSpec(
            job_id="a",
            key="k",
            socket_path="",
            worker_name="w1",
            queue="default",
            workload=make_offer("a").workload,
            bundle_path="",
        )
    )
