"""`airflow remote runtimes build`: what it prints and how it ends. Building itself is in packing/runtimes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_protocol.trees import Tree
from airflow_remote_provider import compat
from airflow_remote_provider.cli.building import needs_database
from airflow_remote_provider.ledger import runtimes
from airflow_remote_provider.packing.runtimes.build import Builder, Order
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.making import Made
from airflow_remote_provider.packing.scan import ScanState

Run = Callable[..., str]
LINUX, WINDOWS = "cp311-linux-gnu-x86_64", "cp312-windows-x86_64"

pytestmark = [pytest.mark.parametrize("run", ["in_process"], indirect=True), pytest.mark.usefixtures("database")]
"""It never calls a server."""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, CannotBuild]]:
    """Make every platform an empty tree, except those in the dictionary, which fail."""
    failures: dict[str, CannotBuild] = {}

    def make(self: Builder, order: Order, platform: Any, work: Path) -> tuple[Made, ScanState]:
        if str(platform) in failures:
            raise failures[str(platform)]
        return Made(str(platform), Tree.of([]), 1.5, ("numpy 2.2 (central: 2.3)",)), ScanState()

    monkeypatch.setattr(Builder, "_make", make)
    yield failures


def test_a_first_build_is_rolled_out(run: Run, failing: dict[str, CannotBuild]) -> None:
    printed = run("runtimes", "build", "default", "--platform", LINUX, "--platform", WINDOWS, "--env", "TZ=UTC", "--no-follow")
    stores = "packing and storing the files that central lacks"
    assert printed.splitlines() == [
        f"{LINUX}: {stores}",
        f"{LINUX}: tree {Tree.of([]).digest[:12]} (files: 0, bytes: 0; new files: 0, packed bytes: 0; 1.5 s)",
        f"{WINDOWS}: {stores}",
        f"{WINDOWS}: tree {Tree.of([]).digest[:12]} (files: 0, bytes: 0; new files: 0, packed bytes: 0; 1.5 s)",
        f"{LINUX}: other versions than on central: numpy 2.2 (central: 2.3)",
        f"{WINDOWS}: other versions than on central: numpy 2.2 (central: 2.3)",
        "default: serial 1 is built, and is rolled out to 100 % of the workers",
    ]
    with compat.transaction() as session:
        known = runtimes.get(session, "default")
    assert known is not None
    assert known.recipe == runtimes.Recipe("", (LINUX, WINDOWS), {"TZ": "UTC"}, follow=False)


def test_a_later_build_waits_to_be_rolled_out(run: Run, failing: dict[str, CannotBuild], tmp_path: Path) -> None:
    run("runtimes", "build", "default", "--platform", LINUX)
    (tmp_path / "r.txt").write_text("pandas\n")
    last = run("runtimes", "build", "default", "--requirements", str(tmp_path / "r.txt")).splitlines()[-1]
    assert last == (
        "default: serial 2 is built; workers stay at serial 1 until you roll it out: airflow remote runtimes roll default "
        "(--percent 10 for some of them first)"
    )
    assert run("runtimes", "build", "default").splitlines()[-1] == "default: unchanged: the newest serial has these files already"


def test_a_failed_platform_is_named_and_noted_without_addresses(
    run: Run, failing: dict[str, CannotBuild], capsys: pytest.CaptureFixture[str]
) -> None:
    failing[WINDOWS] = CannotBuild("https://ann:secret@index/ has no wheel", "uv said\nthis")
    with pytest.raises(SystemExit) as ended:
        run("runtimes", "build", "default", "--platform", LINUX, "--platform", WINDOWS)
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert printed.err.splitlines()[-3:] == [
        f"{WINDOWS}: not built: https://ann:secret@index/ has no wheel",
        "    uv said",
        "    this",
    ]
    assert "serial 1 is built" in printed.out
    with compat.transaction() as session:
        known = runtimes.get(session, "default")
    assert known is not None and known.trouble == f"{WINDOWS}: (an address) has no wheel"
    failing.clear()
    run("runtimes", "build", "default")
    with compat.transaction() as session:
        known = runtimes.get(session, "default")
    assert known is not None and known.trouble == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--server", "https://central"], needs_database("runtimes build")),
        (["--env", "TZ"], "--env TZ: write NAME=value"),
        (["--requirements", "/missing"], "--requirements: /missing can't be read: No such file or directory"),
        (["--platform", "vax"], "'vax' is not a platform such as cp311-linux-gnu-x86_64 or cp312-windows-x86_64; the known"),
        (["--env", "API_TOKEN=x"], "API_TOKEN looks like a secret"),
    ],
)
def test_what_cannot_be_done_ends_the_command_with_a_sentence(
    run: Run, failing: dict[str, CannotBuild], words: list[str], text: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("runtimes", "build", "default", *words)
    assert str(ended.value.code).startswith(text)


def test_a_server_in_the_environment_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_REMOTE_SERVER", "https://central")
    with pytest.raises(SystemExit, match="runtimes build uses Airflow's database"):
        run("runtimes", "build", "default")


def test_a_report_of_nothing_says_so(run: Run, failing: dict[str, CannotBuild], capsys: pytest.CaptureFixture[str]) -> None:
    failing[LINUX] = CannotBuild("no")
    with pytest.raises(SystemExit):
        run("runtimes", "build", "default", "--platform", LINUX)
    assert capsys.readouterr().out.splitlines()[-1] == "default: nothing was built, and nothing was changed"
