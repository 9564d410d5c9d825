"""Trials as real processes: how they end, and what is said about it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow_remote_worker.update import guard
from airflow_remote_worker.update.guard import End, run_trial

pytestmark = pytest.mark.timeout(60)

WAIT_FOR_END = "import os, sys; os.read(int(os.environ['AIRFLOW_REMOTE_TRIAL']), 1); print('my time is up', file=sys.stderr)"
HANG = "import time; time.sleep(1000)"


def run(code: str, *, within_s: float = 30.0) -> End:
    return run_trial([sys.executable, "-c", code], within_s=within_s)


def test_a_trial_that_ends_by_itself_needs_no_reason() -> None:
    assert run("pass") == End(0, "", was_stopped=False)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import no_such",
            "it ended with 1 during its trial; its last words: \"ModuleNotFoundError: No module named 'no_such'\"",
        ),
        ("import os; os._exit(9)", "it ended with 9 during its trial"),
        ("import ctypes; ctypes.string_at(0)", "it was ended by SIGSEGV during its trial"),
    ],
)
def test_the_reason_names_how_it_ended_and_its_last_words(code: str, reason: str) -> None:
    assert run(code).reason == reason


def test_a_program_that_does_not_exist_is_a_reason_too(tmp_path: Path) -> None:
    assert "can't be started" in run_trial([str(tmp_path / "gone")], within_s=30).reason


def test_a_trial_notices_that_its_time_is_up() -> None:
    end = run(WAIT_FOR_END, within_s=1)
    assert (end.code, end.was_stopped) == (0, False)
    assert end.reason == "it did not reach central within 1 s (update.prove_within_s); its last words: 'my time is up'"


def test_a_trial_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "END_WITHIN_S", 0.5)
    end = run(HANG, within_s=0.5)
    assert end.code == -signal.SIGKILL
    assert "it did not reach central" in end.reason


def test_a_signal_ends_the_trial_and_is_no_failure(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"open({str(begun)!r}, 'w').close(); import time; time.sleep(1000)"
    threading.Thread(target=_signal_once, args=(begun.exists,), daemon=True).start()
    end = run(code)
    assert (end.code, end.was_stopped) == (-signal.SIGTERM, True)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _signal_once(holds: Callable[[], bool]) -> None:
    waited = threading.Event()
    while not holds():
        waited.wait(0.02)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_trial_does_not_talk_to_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    assert run("import os, sys; sys.exit('NOTIFY_SOCKET' in os.environ or 'WATCHDOG_USEC' in os.environ)").code == 0
