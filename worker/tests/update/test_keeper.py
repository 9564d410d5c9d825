"""What the daemon does with the release that central wants. Real interpreters run the self-tests; `test_releases.py` above has
whole daemons."""

from __future__ import annotations

import logging
import os
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from airflow_remote_protocol.messages import ReleasePhase, TreeRef, WantedRelease
from airflow_remote_worker.config import Config, UpdateConfig
from airflow_remote_worker.lifecycle import Lifecycle
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.system import unpacked
from airflow_remote_worker.testing.fake_central import FakeCentral
from airflow_remote_worker.update import record as records
from airflow_remote_worker.update.keeper import ReleaseKeeper
from airflow_remote_worker.update.record import MAX_TRIES, Record, Release
from airflow_remote_worker.update.releases import Releases

from ..code.conftest import CodeBench
from ..conftest import HandClock
from .conftest import fetched, installed, of_release

pytestmark = pytest.mark.timeout(120)

GOOD = "import sys; sys.exit(sys.argv[1:] != ['self-test', '--slots', '2'])"
"""A release that passes its self-test, which gets the arguments of the daemon."""
BAD = "import sys; sys.exit('airflow-remote-worker: daemon cannot be imported')"


class Bench:
    """The keeper of a worker whose code is already here."""

    def __init__(self, central: FakeCentral, state: State, releases: Releases, clock: HandClock) -> None:
        self.releases = releases
        self.clock = clock
        self.lifecycle = Lifecycle()
        self.code = CodeBench(central, state.root)
        self.config = Config(state=state.root)
        self.reason = ""
        self.proven: list[str] = []

    def keeper(self, *, is_trial: bool = False) -> ReleaseKeeper:
        async def check(tree: str, kind: str, serial: int) -> str:
            return self.reason

        keeper = ReleaseKeeper(
            config=self.config,
            releases=self.releases,
            code=self.code.code,
            lifecycle=self.lifecycle,
            clock=self.clock,
            arguments=["run", "--slots", "2"],
            is_trial=is_trial,
            check=check,
            on_proven=lambda tree, kind: self.proven.append(tree),
        )
        keeper.load()
        return keeper

    def bring(self, keeper: ReleaseKeeper, wanted: WantedRelease, phase: ReleasePhase) -> str:
        """Let central want a release until it is in *phase*; return the detail."""

        async def main() -> str:
            reached = anyio.Event()

            def note() -> None:
                held = keeper.held()
                if held is not None and held.phase is phase:
                    reached.set()

            keeper.on_change = note
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(keeper.run)
                keeper.on_session(wanted)
                await reached.wait()
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            held = keeper.held()
            assert held is not None and (held.serial, held.phase) == (wanted.serial, phase)
            return held.detail

        return self.code.run(main)


@pytest.fixture
def bench(central: FakeCentral, state: State, releases: Releases, clock: HandClock) -> Bench:
    return Bench(central, state, releases, clock)


def wanted_of(config: Config, program: str, serial: int = 2, about: bytes | None = None) -> WantedRelease:
    """Return a release whose files are here and whose environment is not."""
    files = of_release(program=program) if about is None else of_release(about, program)
    return WantedRelease(f"0.{serial}.0", serial, TreeRef(fetched(config, files), len(files), sum(map(len, files.values()))))


def test_a_release_is_installed_tested_and_put_on_trial(bench: Bench) -> None:
    wanted = wanted_of(bench.config, GOOD)
    keeper = bench.keeper()
    assert keeper.held() is None
    bench.bring(keeper, wanted, ReleasePhase.TRYING)
    assert bench.lifecycle.restarts
    assert bench.releases.load() == Record(candidate=Release.of(wanted))
    assert bench.releases.trouble_of(wanted.tree.digest) == ""
    assert keeper.describe()["wanted"] == {"version": "0.2.0", "serial": 2, "phase": "trying", "detail": ""}


@pytest.mark.parametrize(
    ("program", "about", "reason"),
    [
        (BAD, None, "its self-test ended with 1: daemon cannot be imported"),
        (GOOD, b'{"format": 2}', "its format is 2"),
    ],
    ids=["self-test", "format"],
)
def test_a_release_that_is_no_use_is_not_tried_again(bench: Bench, program: str, about: bytes | None, reason: str) -> None:
    wanted = wanted_of(bench.config, program, about=about)
    assert bench.bring(bench.keeper(), wanted, ReleasePhase.FAILED).startswith(reason)
    assert not bench.lifecycle.restarts
    assert bench.releases.load().failed["2"].startswith(reason)
    again = bench.keeper()  # after a restart of the daemon, too
    assert bench.bring(again, wanted, ReleasePhase.FAILED).startswith(reason)


def test_a_site_that_takes_no_releases_fetches_none(bench: Bench) -> None:
    bench.config = Config(state=bench.config.state, update=UpdateConfig(accept="off"))
    wanted = WantedRelease("0.2.0", 2, TreeRef("a" * 64, 1, 1))
    assert bench.bring(bench.keeper(), wanted, ReleasePhase.REFUSED) == "update.accept is off"
    assert bench.code.packs() == []


def test_a_release_that_the_site_does_not_trust_is_refused(bench: Bench) -> None:
    bench.reason = "nobody has signed it"
    assert bench.bring(bench.keeper(), wanted_of(bench.config, GOOD), ReleasePhase.REFUSED) == bench.reason


def test_an_answered_poll_proves_a_release_on_trial(bench: Bench) -> None:
    candidate = installed(bench.config, bench.releases, 2)
    bench.releases.store(records.note_try(records.begin(Record(), candidate)))
    keeper = bench.keeper(is_trial=True)
    keeper.on_session(None)
    assert bench.releases.load().on_trial == candidate
    keeper.note_answer()
    assert bench.releases.load() == Record(current=candidate)
    assert bench.lifecycle.restarts


def test_an_answered_poll_says_nothing_about_the_release_that_waits(bench: Bench) -> None:
    candidate = installed(bench.config, bench.releases, 2)
    begun = bench.releases.store(records.begin(Record(), candidate))
    bench.keeper().note_answer()
    assert bench.releases.load() == begun


def given_up(bench: Bench, tries: int) -> Release:
    candidate = installed(bench.config, bench.releases, 2, GOOD)
    record = records.begin(Record(), candidate)
    for _ in range(tries):
        record = records.note_try(record)
    bench.releases.store(records.give_up(record, "it ended with 9 during its trial"))
    return candidate


def test_a_trial_failed_if_this_release_reaches_central_soon_after_it(bench: Bench) -> None:
    given_up(bench, 1)
    keeper = bench.keeper()
    keeper.on_session(None)
    assert bench.releases.load() == Record(failed={"2": "it ended with 9 during its trial"})


@pytest.mark.parametrize(("tries", "is_tried_again"), [(1, True), (MAX_TRIES, False)])
def test_a_trial_is_excused_a_few_times_if_this_release_reaches_central_late_too(
    bench: Bench, tries: int, is_tried_again: bool
) -> None:
    candidate = given_up(bench, tries)
    keeper = bench.keeper()
    bench.clock.now += bench.config.update.prove_within_s + 1
    keeper.on_session(None)
    assert (bench.releases.load().candidate == candidate) is is_tried_again


def test_a_full_disk_when_a_trial_is_proven_is_no_end_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.releases.store(records.begin(Record(), installed(bench.config, bench.releases, 2)))
    keeper = bench.keeper(is_trial=True)

    def fail(record: Record) -> Any:
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(bench.releases, "store", fail)
        keeper.note_answer()
    assert "release.json can't be stored: No space left on device" in caplog.text
    assert not bench.lifecycle.restarts
    keeper.note_answer()
    assert bench.lifecycle.restarts


def test_the_start_removes_what_earlier_releases_left(bench: Bench, state: State, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    current = installed(bench.config, bench.releases, 1)
    bench.releases.store(Record(current=current))
    left = state.releases / ("b" * 64)
    left.mkdir()
    copies = state.root / unpacked.DIRECTORY
    for at, name in enumerate(("first", "second")):
        (copies / name).mkdir(parents=True)
        (copies / name / unpacked.MARK).touch()
        os.utime(copies / name, (at, at))
    (copies / "current").symlink_to("second")
    bench.bring(bench.keeper(), wanted_of(bench.config, BAD), ReleasePhase.FAILED)
    assert not left.exists() and (state.releases / current.tree).exists()
    assert sorted(path.name for path in copies.iterdir()) == ["current", "second"]
    assert f"{copies / 'first'} was removed" in caplog.text
