"""Every file of the state directory, cut at every byte and changed at every place: the worker starts and uses what is intact.

One damaged file at a time loses nothing that has a copy. No damage raises an unexpected error.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_remote_protocol.messages import JobPhase, Outcome, Report
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.jobs import supervisor
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.local import job_files
from airflow_remote_worker.state.directory import Membership, State
from airflow_remote_worker.state.files import copy_of, store
from airflow_remote_worker.state.spool import JobDir, ShimRecord, Spool

from ..conftest import make_offer
from ..jobs.test_supervisor import LEASE, Bench, Starter

MEMBERSHIP = Membership(central="https://a", worker_id="1", name="w", credential="secret")
SPEC = job_files.JobSpec("a", "k" * 64, "/g.sock", "w1", "q", make_offer("a").workload, "/dags")
RESULT = job_files.Result(exit_code=0, final_state="success")


def damages(whole: bytes, step: int = 1) -> Iterator[bytes]:
    """Yield *whole* cut at every *step*th byte, with other bytes there, with a gap, and replaced by something else."""
    chance = random.Random(4)
    for at in range(0, len(whole), step):
        yield whole[:at]
        yield whole[:at] + bytes([whole[at] ^ chance.randint(1, 255)]) + whole[at + 1 :]
        end = at + chance.randint(1, 40)
        yield whole[:at] + chance.randbytes(len(whole[at:end])) + whole[end:]
        yield whole[:at] + b"\0" * len(whole[at:end]) + whole[end:]
    yield from (b"[]", b"null", b"0", b'"x"', b"{}", b"[" * 5000, b'{"a":' * 5000, whole + whole)


def both(path: Path) -> list[Path]:
    return [path, copy_of(path)]


@pytest.mark.parametrize("which", [0, 1])
def test_one_damaged_file_changes_nothing_of_the_worker_s_identity(state: State, which: int) -> None:
    state.join(MEMBERSHIP)
    state.store_contact(12345.678)
    instance = state.instance_id()
    ask: dict[str, tuple[Callable[[], object], object]] = {
        "credential.json": (state.membership, MEMBERSHIP),
        "instance": (state.instance_id, instance),
        "contact": (state.contact, 12345.678),
    }
    for name, (read, known) in ask.items():
        path = both(state.root / name)[which]
        whole = path.read_bytes()
        for body in damages(whole):
            path.write_bytes(body)
            assert read() == known, (name, body)
            path.write_bytes(whole)
        shutil.rmtree(state.quarantine, ignore_errors=True)


def test_with_both_copies_damaged_only_the_credential_stops_the_worker(state: State) -> None:
    state.join(MEMBERSHIP)
    for name, read in (("instance", state.instance_id), ("contact", state.contact), ("credential.json", state.membership)):
        state.store_contact(1.0)
        state.instance_id()
        for path in both(state.root / name):
            path.write_bytes(b"\0\0\0")
        if name == "credential.json":
            with pytest.raises(Damaged, match=r"enrolment token and join again with --force"):
                read()
        else:
            read()
    assert len(list(state.quarantine.iterdir())) == 5  # the number is written again at the next contact


def job(state: State, *, result: bool, report: bool = False) -> JobDir:
    """Return a job of an earlier daemon whose shim has ended."""
    found = Spool(state.jobs, quarantine=state.quarantine).of(LEASE)
    found.store_offer(make_offer("a"))
    found.store_spec(SPEC)
    found.store_shim(ShimRecord(2**22 - 3, 1.0, "gone"))
    found.task_log.write_bytes(b'{"event": "x"}\n')
    found.shim_log.touch()
    if result:
        store(found.path / "result.json", RESULT)
    if report:
        found.store_report(Report(outcome=Outcome.SUCCEEDED, exit_code=0))
    return found


FILES = ("offer.json", "offer.json.copy", "job.json", "job.json.copy", "shim.json", "report.json", "closed.json", "result.json")


@pytest.mark.parametrize("name", FILES)
def test_no_damage_to_a_job_s_file_is_read_as_other_content(state: State, name: str) -> None:
    found = job(state, result=True, report=True)
    if name == "closed.json":
        store(found.path / name, Report(outcome=Outcome.SUCCEEDED))
    whole = (found.path / name).read_bytes()
    for body in damages(whole):
        (found.path / name).write_bytes(body)
        assert bytes(found.offer().workload) == bytes(make_offer("a").workload)
        assert found.offer().slots == 1
        spec = found.spec()
        assert spec and spec.key == SPEC.key
        assert found.shim() in (None, ShimRecord(2**22 - 3, 1.0, "gone"))
        assert found.report() in (None, Report(outcome=Outcome.SUCCEEDED, exit_code=0))
        if name == "closed.json":
            assert found.closed()
        try:
            assert found.result() == RESULT
        except Damaged:
            assert name == "result.json"
        (found.path / name).write_bytes(whole)
    shutil.rmtree(state.quarantine, ignore_errors=True)


@pytest.fixture
def nobody_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HELLO_WITHIN_S", 0.01)
    monkeypatch.setattr(supervisor, "find_shim", lambda log: None)
    monkeypatch.setattr(supervisor, "end_strays", lambda name, shim: [])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.timeout(120)
def test_whatever_is_damaged_the_job_is_adopted_and_reported_once(
    state: State, nobody_lives: None, name: str, ended: bool
) -> None:
    found = job(state, result=ended)
    path = found.path / name
    whole = path.read_bytes() if path.exists() else b'{"outcome":"succeeded","reason":""}'
    for body in damages(whole, step=23):
        shutil.rmtree(found.path)
        job(state, result=ended)
        path.write_bytes(body)
        bench = Bench(state, Starter())
        bench.run(bench.supervisor.adopt)
        assert bench.starter.started == []  # no second copy
        if name == "closed.json":
            assert not bench.supervisor.jobs
            continue
        (one,) = bench.supervisor.jobs.values()
        assert one.report is not None
        assert bench.session.held()[0].phase is JobPhase.ENDED
        if name not in ("result.json", "report.json"):
            assert one.report.outcome is (Outcome.SUCCEEDED if ended else Outcome.DIED), body
    shutil.rmtree(state.quarantine, ignore_errors=True)


@pytest.mark.parametrize("name", ["offer.json", "job.json"])
def test_with_both_copies_damaged_the_job_is_ended_and_reported_with_the_reason(
    state: State, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(supervisor, "end_strays", lambda name, shim: ended.append(name) or ["python (7)"])
    found = job(state, result=False)
    for path in both(found.path / name):
        path.write_bytes(b"")
    bench = Bench(state, Starter())
    bench.run(bench.supervisor.adopt)
    assert ended == ["a.1"]
    assert bench.report.outcome is Outcome.DIED
    assert "notes about this job are damaged" in bench.report.reason
    assert "ended python (7)" in found.task_log.read_text()
    assert name in " ".join(path.name for path in state.quarantine.iterdir())


def test_a_job_with_a_partly_stored_offer_is_left_for_central_to_offer_again(state: State) -> None:
    spool = Spool(state.jobs, quarantine=state.quarantine)
    found = spool.of(Lease("a", 1))
    found.path.mkdir()
    (found.path / "offer.json").write_bytes(b'{"job_')
    bench = Bench(state, Starter())
    bench.run(bench.supervisor.adopt)
    assert not bench.supervisor.jobs
    assert list(spool) == []
