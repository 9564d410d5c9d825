"""Trust over a whole daemon: only what trusted keys have signed is used."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_protocol.messages import Outcome, ReleasePhase, RuntimePhase, RuntimeRef
from airflow_remote_protocol.statements import Kind
from airflow_remote_protocol.states import JobState
from airflow_remote_worker import daemon as daemon_module
from airflow_remote_worker.cli import main
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.code.trust import keys_in_settings
from airflow_remote_worker.config import Config, ConfigError, RuntimeConfig, TrustConfig
from airflow_remote_worker.jobs import launcher
from airflow_remote_worker.jobs import runtimes as runtimes_module
from airflow_remote_worker.state.trusted_keys import TrustedKeys, TrustFile
from airflow_remote_worker.testing.code import keep_raw
from airflow_remote_worker.testing.fake_central import FakeCentral

from testkit.signing import SigningKey

from ..conftest import FAKE_RUNTIME, RunningWorker, eventually, no_signals
from ..test_sent_runtimes import OF_THE_FAKE

pytestmark = pytest.mark.timeout(120)

ANN, BOB, EVE = SigningKey(), SigningKey(), SigningKey()


class NewWorker:
    def __init__(self, central: FakeCentral, root: Path) -> None:
        self.central, self.root = central, root
        self.made: list[RunningWorker] = []

    def __call__(self, *keys: SigningKey, pinned: bool = False, has_runtime: bool = True, threshold: int = 1) -> RunningWorker:
        trust = TrustConfig(bundles=() if pinned else tuple(key.public.line for key in keys), threshold=threshold)
        runtime = None if has_runtime else RuntimeConfig(env=OF_THE_FAKE)
        worker = RunningWorker(self.central, self.root, bundles={}, runtime=runtime, trust=trust)
        worker.join()
        if pinned:
            TrustFile(worker.state.root, worker.state.put_aside).store(TrustedKeys([key.public.line for key in keys]))
        self.made.append(worker)
        worker.start()
        return worker


@pytest.fixture
def new(central: FakeCentral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NewWorker]:
    central.code.encode = keep_raw
    monkeypatch.setattr(launcher, "LAUNCHER", FAKE_RUNTIME)
    monkeypatch.setattr(daemon_module, "daemon_signals", no_signals)
    monkeypatch.setattr(runtimes_module, "RETRY_FLOOR_S", 0.2)
    making = NewWorker(central, tmp_path)
    yield making
    for worker in making.made:
        worker.detach()
        worker.end_processes()


def publish(central: FakeCentral, script: str = "run\nexit 0") -> str:
    return central.publish({"a_dag.py": script.encode()})


def enqueue(central: FakeCentral, tree: str) -> str:
    return central.enqueue("q", tree=central.code.ref(tree))


def refusal(central: FakeCentral, job_id: str) -> str:
    central.wait_for_state(job_id, JobState.FAILED)
    report = central.job(job_id).report
    assert report is not None
    assert report.outcome is Outcome.UNPREPARED
    assert report.reason[:100] in central.log_bytes(job_id).decode()
    return report.reason


def test_unsigned_code_is_not_even_fetched(central: FakeCentral, new: NewWorker) -> None:
    new(ANN)
    tree = publish(central)
    reason = refusal(central, enqueue(central, tree))
    assert "nobody has signed it" in reason
    assert ANN.public.id[:16] in reason
    assert f"airflow remote sign tree {tree}" in reason
    assert central.requests_to(f"trees/{tree}/pack") == []


def test_signed_code_runs_and_is_not_asked_about_again(central: FakeCentral, new: NewWorker) -> None:
    worker = new(ANN)
    tree = publish(central)
    central.code.statements = [EVE.sign(tree, name="dags-folder"), ANN.sign(tree, name="dags-folder")]
    central.wait_for_state(enqueue(central, tree), JobState.SUCCEEDED)
    worker.detach()
    worker.start()
    central.wait_for_state(enqueue(central, tree), JobState.SUCCEEDED)
    assert len(central.requests_to(f"trees/{tree}/statements")) == 1


def test_code_runs_once_it_is_signed(central: FakeCentral, new: NewWorker) -> None:
    new(ANN)
    tree = publish(central)
    central.code.statements = [EVE.sign(tree, name="dags-folder")]
    assert "does not trust" in refusal(central, enqueue(central, tree))
    central.code.statements.append(ANN.sign(tree, name="dags-folder"))
    central.wait_for_state(enqueue(central, tree), JobState.SUCCEEDED)


def test_one_key_is_not_enough_where_two_are_required(central: FakeCentral, new: NewWorker) -> None:
    new(ANN, BOB, threshold=2)
    tree = publish(central)
    central.code.statements = [ANN.sign(tree, name="dags-folder")]
    assert "1 of the 2 keys" in refusal(central, enqueue(central, tree))
    central.code.statements.append(BOB.sign(tree, name="dags-folder"))
    central.wait_for_state(enqueue(central, tree), JobState.SUCCEEDED)


def test_pinned_keys_are_replaced_by_keys_that_they_have_signed(central: FakeCentral, new: NewWorker) -> None:
    worker = new(ANN, pinned=True)
    tree = publish(central)
    central.code.statements = [EVE.hand_over_to(EVE, serial=1), EVE.sign(tree, name="dags-folder")]
    assert "does not trust" in refusal(central, enqueue(central, tree))
    central.code.statements = [ANN.hand_over_to(BOB, serial=1), BOB.sign(tree, name="dags-folder")]
    central.wait_for_state(enqueue(central, tree), JobState.SUCCEEDED)
    assert TrustFile(worker.state.root, worker.state.put_aside).load().keys == [BOB.public.line]
    old = publish(central, "run\nlog old\nexit 0")
    central.code.statements = [ANN.sign(old, name="dags-folder")]
    assert "does not trust" in refusal(central, enqueue(central, old))


def roll(central: FakeCentral) -> RuntimeRef:
    about = {"format": 1, "name": "default", "python": f"3.{sys.version_info[1]}", "env": {}}
    files = {"runtime.json": json.dumps(about).encode(), "site-packages/a.py": f"x = {time.time_ns()}".encode()}
    return central.roll("q", central.code.publish(files), "default")


def phase(central: FakeCentral, ref: RuntimeRef) -> tuple[RuntimePhase | None, str]:
    found = [one for one in central.runtimes("w1") if one.tree == ref.tree.digest]
    return (found[0].phase, found[0].detail) if found else (None, "")


def test_an_unsigned_runtime_fails_with_the_reason_and_works_once_it_is_signed(central: FakeCentral, new: NewWorker) -> None:
    ref = roll(central)
    new(ANN, has_runtime=False)
    eventually(lambda: phase(central, ref)[0] is RuntimePhase.FAILED, timeout_s=30)
    assert "nobody has signed it" in phase(central, ref)[1]
    assert central.requests_to(f"trees/{ref.tree.digest}/pack") == []
    central.code.statements = [ANN.sign(ref.tree.digest, Kind.RUNTIME, name="default", serial=1)]
    eventually(lambda: phase(central, ref)[0] is RuntimePhase.READY, timeout_s=30)


def test_a_runtime_older_than_one_that_has_worked_is_not_taken_again(central: FakeCentral, new: NewWorker) -> None:
    second = roll(central)
    worker = new(ANN, has_runtime=False)
    central.code.statements = [ANN.sign(second.tree.digest, Kind.RUNTIME, name="default", serial=2)]
    eventually(lambda: phase(central, second)[0] is RuntimePhase.READY, timeout_s=30)
    first = roll(central)
    central.code.statements.append(ANN.sign(first.tree.digest, Kind.RUNTIME, name="default", serial=1))
    eventually(lambda: phase(central, first)[0] is RuntimePhase.FAILED, timeout_s=30)
    assert "serial 2 was used here" in phase(central, first)[1]
    assert TrustFile(worker.state.root, worker.state.put_aside).load().floors == {"runtime default": 2}


def test_a_runtime_that_was_signed_as_another_one_is_not_used(central: FakeCentral, new: NewWorker) -> None:
    ref = roll(central)
    central.code.statements = [ANN.sign(ref.tree.digest, Kind.RUNTIME, name="gpu", serial=1)]
    new(ANN, has_runtime=False)
    eventually(lambda: phase(central, ref)[0] is RuntimePhase.FAILED, timeout_s=30)
    text = phase(central, ref)[1]
    assert f"the statement of key {ANN.public.id[:16]} is about 'gpu', not about 'default'" in text
    assert f"airflow remote sign tree {ref.tree.digest}" in text
    assert central.requests_to(f"trees/{ref.tree.digest}/pack") == []


def test_a_runtime_that_works_is_not_used_under_another_name(central: FakeCentral, new: NewWorker) -> None:
    ref = roll(central)
    central.code.statements = [ANN.sign(ref.tree.digest, Kind.RUNTIME, name="default", serial=1)]
    new(ANN, has_runtime=False)
    eventually(lambda: phase(central, ref)[0] is RuntimePhase.READY, timeout_s=30)
    central.roll("q", ref.tree, "gpu")
    eventually(lambda: phase(central, ref)[0] is RuntimePhase.FAILED, timeout_s=30)
    assert "is about 'default', not about 'gpu'" in phase(central, ref)[1]


def test_a_runtime_whose_signature_expires_gets_no_more_jobs_until_it_is_signed_again(
    central: FakeCentral, new: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, until = roll(central), time.time() + 3600
    code = publish(central)
    central.code.statements = [
        ANN.sign(code, name="dags-folder"),
        ANN.sign(ref.tree.digest, Kind.RUNTIME, name="default", serial=1, expires=until),
    ]
    new(ANN, has_runtime=False)
    central.wait_for_state(enqueue(central, code), JobState.SUCCEEDED, timeout_s=30)
    monkeypatch.setattr(SystemClock, "wall", lambda self: time.time() + 7200)
    job_id = enqueue(central, code)
    eventually(lambda: phase(central, ref)[0] is RuntimePhase.FAILED, timeout_s=30)
    assert "has expired" in phase(central, ref)[1]
    central.code.statements.append(ANN.sign(ref.tree.digest, Kind.RUNTIME, name="default", serial=1))
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=30)


def test_a_runtime_that_was_ready_is_refused_below_the_floor(central: FakeCentral, new: NewWorker) -> None:
    worker = new(ANN, has_runtime=False)
    ref = roll(central)
    central.code.statements = [ANN.sign(ref.tree.digest, Kind.RUNTIME, name="default", serial=1)]
    eventually(lambda: phase(central, ref)[0] is RuntimePhase.READY, timeout_s=30)
    worker.detach()
    TrustFile(worker.state.root, worker.state.put_aside).store(TrustedKeys(floors={"runtime default": 2}))
    worker.start()
    eventually(lambda: phase(central, ref)[0] is RuntimePhase.FAILED, timeout_s=30)
    assert "a rollback has a new serial, which must be signed" in phase(central, ref)[1]


def release_phase(central: FakeCentral) -> tuple[ReleasePhase | None, str]:
    held = central.held_release("w1")
    return (held.phase, held.detail) if held else (None, "")


def test_an_unsigned_release_of_the_worker_is_refused_with_the_reason(central: FakeCentral, new: NewWorker) -> None:
    wanted = central.release(central.code.publish({"release.json": b"{}"}))
    worker = new(ANN)
    eventually(lambda: release_phase(central)[0] is ReleasePhase.REFUSED, timeout_s=30)
    assert "nobody has signed it" in release_phase(central)[1]
    assert central.requests_to(f"trees/{wanted.tree.digest}/pack") == []
    central.code.statements = [ANN.sign(wanted.tree.digest, Kind.RELEASE, name="worker", serial=wanted.serial)]
    worker.detach()
    worker.start()
    eventually(lambda: release_phase(central)[0] is ReleasePhase.FAILED, timeout_s=30)  # signed, but it is no release
    assert len(central.requests_to(f"trees/{wanted.tree.digest}/pack")) == 1


def test_a_release_older_than_one_that_has_worked_is_refused(central: FakeCentral, new: NewWorker, tmp_path: Path) -> None:
    wanted = central.release(central.code.publish({"release.json": b"{}"}))
    central.code.statements = [ANN.sign(wanted.tree.digest, Kind.RELEASE, name="worker", serial=4)]
    state = tmp_path / "state"
    state.mkdir()
    TrustFile(state, lambda path: None).store(TrustedKeys(floors={"release worker": 5}))
    new(ANN)
    eventually(lambda: release_phase(central)[0] is ReleasePhase.REFUSED, timeout_s=30)
    assert "is about serial 4, and serial 5 was used here" in release_phase(central)[1]


def test_a_release_that_was_signed_under_another_name_is_refused(central: FakeCentral, new: NewWorker) -> None:
    """Its serials would have a floor of their own."""
    wanted = central.release(central.code.publish({"release.json": b"{}"}))
    central.code.statements = [ANN.sign(wanted.tree.digest, Kind.RELEASE, name="another", serial=4)]
    new(ANN)
    eventually(lambda: release_phase(central)[0] is ReleasePhase.REFUSED, timeout_s=30)
    assert "is about 'another', not about 'worker'" in release_phase(central)[1]


@pytest.mark.parametrize(("keys", "threshold"), [(("/no/such/file",), 1), ((ANN.public.line,), 2)])
def test_settings_that_can_not_be_used_end_the_daemon_at_its_start(keys: tuple[str, ...], threshold: int) -> None:
    with pytest.raises(ConfigError, match=r"^trust\."):
        keys_in_settings(Config(state=Path("/s"), trust=TrustConfig(bundles=keys, threshold=threshold)))


def test_join_pins_the_keys_in_a_file(central: FakeCentral, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys.pub").write_text(ANN.public.pem + BOB.public.pem)
    joining = ["join", central.url, "--token", central.enrolment_token(["q"]), "--state", str(tmp_path / "state")]
    assert main([*joining, "--trust", str(tmp_path / "gone.pub")]) == 2
    assert "gone.pub can't be read" in capsys.readouterr().err
    assert main([*joining, "--trust", str(tmp_path / "keys.pub")]) == 0
    capsys.readouterr()
    assert main(["trust", "show", "--state", str(tmp_path / "state")]) == 0
    shown = capsys.readouterr().out
    assert f"pinned key {ANN.public.id}" in shown
    assert f"pinned key {BOB.public.id}" in shown


def test_trust_show_names_the_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, file = tmp_path / "state", tmp_path / "ann.pub"
    assert main(["trust", "show", "--state", str(state)]) == 0
    assert "no key" in capsys.readouterr().out
    file.write_text(ANN.public.pem)
    assert main(["trust", "pin", str(file), "--state", str(state)]) == 0
    assert f"pinned key {ANN.public.id}" in capsys.readouterr().out
    file.write_text("-----BEGIN PRIVATE KEY-----")
    assert main(["trust", "pin", str(file), "--state", str(state)]) == 2
    assert "it is a private key" in capsys.readouterr().err
