"""`airflow remote releases add`: what it prints and how it ends. Making releases is in packing/releases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_protocol.trees import Tree
from airflow_remote_provider import __version__, compat
from airflow_remote_provider.cli.building import needs_database
from airflow_remote_provider.ledger import releases, runtimes
from airflow_remote_provider.ledger.assignments import WORKER
from airflow_remote_provider.ledger.trees import RELEASE
from airflow_remote_provider.packing.releases import ReleaseBuilder
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.making import Made
from airflow_remote_provider.packing.scan import ScanState

from testkit.ledger import enlist

Run = Callable[..., str]
WAITS = "workers keep what they run until you roll it out: airflow remote releases roll (--percent 10 for some of them first)"
LINUX, MACOS = "cp311-linux-gnu-x86_64", "cp312-macos-aarch64"

pytestmark = [pytest.mark.parametrize("run", ["in_process"], indirect=True), pytest.mark.usefixtures("database")]
"""It never calls a server."""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, CannotBuild]]:
    """Make every platform an empty tree, except those in the dictionary, which fail."""
    failures: dict[str, CannotBuild] = {}

    def make(self: ReleaseBuilder, version: str, platform: Any, work: Path) -> tuple[Made, ScanState]:
        if str(platform) in failures:
            raise failures[str(platform)]
        return Made(str(platform), Tree.of([]), 1.5), ScanState()

    monkeypatch.setattr(ReleaseBuilder, "_make", make)
    yield failures


def added() -> list[tuple[int, str]]:
    with compat.transaction() as session:
        return [(one.serial, one.platform) for one in runtimes.editions(session, WORKER, kind=RELEASE).get(WORKER, ())]


def test_a_release_is_added_and_waits_to_be_rolled_out(run: Run, failing: dict[str, CannotBuild]) -> None:
    assert run("releases", "add", "0.2.0", "--platform", LINUX).splitlines() == [
        f"{LINUX}: packing and storing the files that central lacks",
        f"{LINUX}: tree {Tree.of([]).digest[:12]} (files: 0, bytes: 0; new files: 0, packed bytes: 0; 1.5 s)",
        f"release 0.2.0: serial 1 is added; {WAITS}",
    ]
    assert added() == [(1, LINUX)]
    last = run("releases", "add", "0.2.0", "--platform", LINUX).splitlines()[-1]
    assert last == "release 0.2.0: unchanged: the newest release has these files already"
    assert added() == [(1, LINUX)]


def test_a_release_is_rolled_out_in_stages(run: Run, failing: dict[str, CannotBuild]) -> None:
    last = run("releases", "add", "--platform", LINUX, "--roll", "--no-follow").splitlines()[-1]
    assert last == f"release {__version__}: serial 1 is added, and is rolled out to some workers first"
    with compat.transaction() as session:
        row = releases.must_lock(session)
        found = (row.serial, row.percent, row.updated_by, row.follow, row.built_with)
    assert found == (1, 10, "follow", False, {"provider": __version__})
    last = run("releases", "add", "--platform", MACOS, "--follow").splitlines()[-1]
    assert last == f"release {__version__}: serial 2 is added; {WAITS}"


def test_the_version_of_the_provider_is_added_for_the_platforms_of_the_fleet(run: Run, failing: dict[str, CannotBuild]) -> None:
    enlist("edge", capabilities=("task", "releases"), platform=MACOS)
    assert f"release {__version__}: serial 1 is added" in run("releases", "add")
    assert added() == [(1, MACOS)]


def test_a_platform_that_fails_is_named_with_what_uv_printed(
    run: Run, failing: dict[str, CannotBuild], capsys: pytest.CaptureFixture[str]
) -> None:
    failing[MACOS] = CannotBuild("psutil has no wheel", "uv said\nthis")
    with pytest.raises(SystemExit) as ended:
        run("releases", "add", "--platform", LINUX, "--platform", MACOS)
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert printed.err.splitlines()[-3:] == [f"{MACOS}: not built: psutil has no wheel", "    uv said", "    this"]
    assert added() == [(1, LINUX)]
    failing[LINUX] = failing[MACOS]
    with pytest.raises(SystemExit):
        run("releases", "add", "0.3.0", "--platform", LINUX)
    assert capsys.readouterr().out.splitlines()[-1] == "release 0.3.0: nothing was built, and nothing was changed"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--server", "https://central"], needs_database("releases add")),
        (["latest"], "'latest' is not a version such as"),
        (["--platform", "cp312-windows-x86_64"], "cp312-windows-x86_64: workers on Windows take no releases"),
        (["--wheels", "/missing"], "--wheels: /missing can't be read: No such file or directory"),
    ],
)
def test_what_cannot_be_done_ends_the_command_with_a_sentence(
    run: Run, failing: dict[str, CannotBuild], words: list[str], text: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("releases", "add", *words)
    assert str(ended.value.code).startswith(text)
