"""The start of `run` as real processes: which release they become, and how a trial ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from airflow_remote_worker.config import Config
from airflow_remote_worker.state.directory import State, StateInUse
from airflow_remote_worker.update import handover
from airflow_remote_worker.update import record as records
from airflow_remote_worker.update.record import MAX_TRIES, Record, Release
from airflow_remote_worker.update.releases import Releases
from airflow_remote_worker.update.trial import TRIAL

from ..conftest import eventually
from .conftest import fetched, installed, of_release

pytestmark = pytest.mark.timeout(120)

BEGIN = """
import logging, sys
from pathlib import Path
from airflow_remote_worker.config import Config
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.update.handover import begin
logging.basicConfig()
root = Path(sys.argv[1])
print("installed", begin(Config(state=root), State(root), ["run", "--slots", "2"]))
"""
"""What the installed release does when it starts: it prints the result, if it doesn't become another one."""
SERVE = "import os, sys; print('release', sys.prefix.split('/')[-2], *sys.argv[1:])"
"""The program of a release."""
PROVE = """
import os, shutil, sys
from pathlib import Path
if {trial!r} in os.environ:
    for path in Path({proven!r}).iterdir():
        shutil.copy(path, {root!r})
else:
    print('release', sys.prefix.split('/')[-2])
"""
WAIT = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
pathlib.Path({begun!r}).touch()
time.sleep(100)
"""


def begin(state: State) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", BEGIN, str(state.root)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(state: State) -> tuple[str, str]:
    """Return what the process prints, and its log."""
    printed, logged = begin(state).communicate(timeout=60)
    return printed.strip(), logged


def test_a_worker_without_releases_goes_on(config: Config, state: State, releases: Releases) -> None:
    assert handover.begin(config, state, ["run"]) is None
    releases.store(Record())
    assert handover.begin(config, state, ["run"]) is None


def test_a_process_becomes_the_current_release_with_the_same_arguments(config: Config, state: State, releases: Releases) -> None:
    current = installed(config, releases, 1, SERVE)
    releases.store(Record(current=current))
    process = begin(state)
    printed, _ = process.communicate(timeout=60)
    assert printed.split() == ["release", current.tree, "run", "--slots", "2"]


def test_the_installed_release_runs_if_the_current_one_is_damaged(config: Config, state: State, releases: Releases) -> None:
    tree = fetched(config, of_release())
    releases.store(Record(current=Release("0.1.0", 1, tree)))
    printed, logged = outcome(state)
    assert printed == "installed None"
    assert "release 0.1.0 (serial 1) can't be started: its environment" in logged


def test_a_trial_that_reaches_central_takes_over(config: Config, state: State, releases: Releases, tmp_path: Path) -> None:
    proven = tmp_path / "proven"
    program = PROVE.format(trial=TRIAL, proven=str(proven), root=str(state.releases))
    candidate = installed(config, releases, 2, program)
    begun = records.begin(Record(), candidate)
    releases.store(records.prove(records.note_try(begun)))
    proven.mkdir()
    for path in state.releases.glob("release.json*"):
        path.rename(proven / path.name)
    releases.store(begun)
    assert outcome(state)[0].split() == ["release", candidate.tree]
    assert releases.load() == Record(current=candidate)


def test_a_trial_that_fails_is_given_up_and_the_process_goes_on(config: Config, state: State, releases: Releases) -> None:
    bad = installed(config, releases, 2, "raise KeyError('x')")
    releases.store(records.begin(Record(), bad))
    printed, logged = outcome(state)
    assert printed == "installed None"
    assert "release 0.2.0 (serial 2) was given up: it ended with 1 during its trial" in logged
    record = releases.load()
    assert (record.current, record.candidate, record.tries) == (None, bad, 1)
    assert record.ended.endswith("KeyError: 'x'\"")


def test_a_trial_that_ends_without_a_decision_is_repeated_a_few_times(config: Config, state: State, releases: Releases) -> None:
    candidate = installed(config, releases, 2, "pass")
    releases.store(records.begin(Record(), candidate))
    assert outcome(state)[0] == "installed None"
    record = releases.load()
    assert record.tries == MAX_TRIES
    assert record.ended == f"{MAX_TRIES} trials ended without a result: this machine restarted, or central could not be reached"


def test_a_damaged_candidate_is_not_run(config: Config, state: State, releases: Releases) -> None:
    releases.store(records.begin(Record(), Release("0.2.0", 2, fetched(config, of_release(program="raise SystemExit(9)")))))
    assert outcome(state)[0] == "installed None"
    record = releases.load()
    assert record.tries == 0
    assert record.ended.startswith("its environment")


def test_a_stop_ends_the_trial_too_and_the_next_start_tries_again(
    config: Config, state: State, releases: Releases, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    candidate = installed(config, releases, 2, WAIT.format(begun=str(begun)))
    releases.store(records.begin(Record(), candidate))
    process = begin(state)
    eventually(begun.exists, timeout_s=60)
    with pytest.raises(StateInUse, match="tries a new release"):
        handover.begin(config, state, ["run"])
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "installed 5\n"
    assert releases.load().on_trial == candidate


def test_a_release_on_trial_tries_no_other_one(
    config: Config, state: State, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases.store(records.begin(Record(), Release("0.2.0", 2, "a" * 64)))
    monkeypatch.setenv(TRIAL, "5")
    assert handover.begin(config, state, ["run"]) is None
    assert releases.load().ended == ""
