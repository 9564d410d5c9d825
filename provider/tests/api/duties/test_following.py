"""The duty to follow central's versions: what it builds, that it builds once, and what becomes of a build that fails or hangs."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testkit.ledger import enlist  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties import following as duty
from airflow_remote_provider.api.duties.following import Following, build_command
from airflow_remote_provider.ledger import releases, rollouts, runtimes
from airflow_remote_provider.ledger.rollouts import RELEASES, Kind
from airflow_remote_provider.ledger.runtimes import Built, Recipe, RuntimeRecord
from airflow_remote_provider.packing.runtimes.following import Due
from airflow_remote_provider.settings import parse
from sqlalchemy.orm import Session

from testkit.runtimes import LINUX, WINDOWS, stored_tree

pytestmark = pytest.mark.usefixtures("database")
VERSIONS = {"airflow": "3.3.2", "task_sdk": "1.3.2", "provider": "0.1.0"}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Following]]:
    """Make the duty, whose builds run a program of the test; what they were asked for is in `tmp_path/asked`."""
    monkeypatch.setattr(duty, "built_with", lambda: VERSIONS)
    made: list[Following] = []

    def make(program: str = "", **options: float) -> Following:
        asked = f"open({str(tmp_path / 'asked')!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))"

        def command(kind: Kind, due: Due) -> list[str]:
            return [sys.executable, "-c", f"import sys, time, os; {asked}; {program}", kind.name, *due.platforms]

        made.append(Following(parse({}), command=command, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.stop()
        settle(one)


def settle(following: Following) -> None:
    if following._build is not None:
        following._build.join(30)
        assert not following._build.is_alive()


def built(versions: dict[str, str] = VERSIONS, recipe: Recipe = Recipe()) -> None:  # noqa: B008
    tree = stored_tree("x")
    compat.in_transaction(
        lambda session: runtimes.add(session, "default", recipe, [Built(LINUX, tree)], built_with=versions, by="ann")
    )


def record() -> RuntimeRecord:
    found = compat.in_transaction(lambda session: runtimes.get(session, "default"))
    assert found is not None
    return found


def asked(tmp_path: Path) -> list[str]:
    path = tmp_path / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_a_newer_central_builds_all_platforms(make: Callable[..., Following], tmp_path: Path) -> None:
    built({**VERSIONS, "airflow": "3.3.1"})
    following = make()
    following.run_round()
    settle(following)
    assert asked(tmp_path) == ["default"]


def test_a_new_platform_of_the_fleet_is_built_alone(make: Callable[..., Following], tmp_path: Path) -> None:
    built()
    following = make()
    following.run_round()
    assert following._build is None
    enlist("edge", capabilities=("task", "runtimes"), platform=WINDOWS)
    following.run_round()
    settle(following)
    assert asked(tmp_path) == [f"default {WINDOWS}"]


def test_the_command_builds_and_rolls_out_in_stages() -> None:
    command = build_command(rollouts.of_runtime("default"), Due((LINUX,), ""))
    assert command[1:] == ["-m", "airflow", "remote", "runtimes", "build", "default", "--roll", "--platform", LINUX]
    assert build_command(RELEASES, Due((), ""))[3:] == ["remote", "releases", "add", "--roll"]
    assert build_command(RELEASES, Due((LINUX,), "", "0.2.0"))[5:] == ["add", "0.2.0", "--roll", "--platform", LINUX]


def test_a_newer_provider_adds_its_release_and_a_failure_is_shown_with_the_releases(
    make: Callable[..., Following], tmp_path: Path
) -> None:
    tree = stored_tree("a release")
    following = make("sys.exit(3)")
    following.run_round()
    assert following._build is None, "nothing was ever added"

    def add(session: Session) -> None:
        releases.add(session, "0.0.1", [Built(LINUX, tree)], by="ann", built_with={"provider": "0.0.1"})
        rollouts.roll(session, RELEASES, by="ann")

    compat.in_transaction(add)
    following.run_round()
    settle(following)
    assert asked(tmp_path) == ["worker"]
    trouble = compat.in_transaction(releases.must_lock).trouble
    assert trouble == "the build ended with code 3; see the log of the API server"


def test_a_build_has_low_priority_and_is_the_only_one(make: Callable[..., Following], tmp_path: Path) -> None:
    built({**VERSIONS, "airflow": "3.3.1"})
    go = tmp_path / "go"
    program = f"[time.sleep(0.05) for _ in range(400) if not os.path.exists({str(go)!r})]; sys.exit(os.nice(0) + 20)"
    following = make(program)
    following.run_round()
    following.run_round()
    go.touch()
    settle(following)
    assert len(asked(tmp_path)) == 1
    lower = min(19, os.nice(0) + 10)
    assert record().trouble == f"the build ended with code {lower + 20}; see the log of the API server"


def test_a_failure_is_shown_and_repeated_later(make: Callable[..., Following], tmp_path: Path) -> None:
    built({**VERSIONS, "airflow": "3.3.1"})
    now = [0.0]
    program = f"print('{LINUX}: not built: thing has no wheel, see https://ann:secret@index/simple'); sys.exit(1)"
    following = make(program, monotonic=lambda: now[0])  # type: ignore[arg-type]
    for seconds, times in ((0.0, 1), (299.0, 1), (300.0, 2), (899.0, 2), (900.0, 3)):
        now[0] = seconds
        following.run_round()
        settle(following)
        assert len(asked(tmp_path)) == times, seconds
    assert record().trouble == f"{LINUX}: not built: thing has no wheel, see (an address)"


def test_a_build_that_does_not_end_is_ended(make: Callable[..., Following]) -> None:
    built({**VERSIONS, "airflow": "3.3.1"})
    following = make("time.sleep(60)", longest_build_s=0.3)
    began = time.monotonic()
    following.run_round()
    settle(following)
    assert time.monotonic() - began < 20
    assert record().trouble.startswith("signal 15 ended the build")


def test_only_one_process_of_several_builds(make: Callable[..., Following], tmp_path: Path) -> None:
    built({**VERSIONS, "airflow": "3.3.1"})
    first, second = make(), make()
    first.run_round()
    second.run_round()
    settle(first)
    assert second._build is None
    assert len(asked(tmp_path)) == 1


def end_while_it_builds(following: Following) -> None:
    """Run the duty until a build runs, and end it as the end of an API server does."""

    async def serve() -> None:
        task = asyncio.create_task(following.run())
        while following._child is None:
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(serve())
    settle(following)


def test_the_end_of_the_api_server_ends_the_build_without_a_trouble(make: Callable[..., Following]) -> None:
    built({**VERSIONS, "airflow": "3.3.1"})
    following = make("time.sleep(60)")
    end_while_it_builds(following)
    assert record().trouble == ""


def test_another_process_follows_as_soon_as_one_ends(make: Callable[..., Following]) -> None:
    built({**VERSIONS, "airflow": "3.3.1"})
    first, second = make("time.sleep(60)"), make()
    end_while_it_builds(first)
    second.run_round()
    assert second._build is not None


def test_it_can_be_switched_off(make: Callable[..., Following], tmp_path: Path) -> None:
    built({**VERSIONS, "airflow": "3.3.1"})
    following = make()
    following._settings = replace(following._settings, runtimes="off")
    asyncio.run(asyncio.wait_for(following.run(), 5))
    assert asked(tmp_path) == []
