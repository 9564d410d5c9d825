"""`airflow remote publish`: what it prints, how it ends, and that a watch publishes changes and leaves its duties."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.bundles import LOCAL, configure_bundles  # isort: skip
from testkit.ledger import substitute  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import trees
from airflow_remote_provider.ledger.publishing import publishing_now
from airflow_remote_provider.models import BundleRow

Run = Callable[..., str]

pytestmark = pytest.mark.parametrize("run", ["in_process"], indirect=True)
"""It never calls a server."""


@pytest.fixture
def dags(tmp_path: Path, database: object) -> Iterator[Path]:
    trees.forget_loaded()
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "etl.py").write_text("x = 1\n")
    with configure_bundles(tmp_path / "storage", main=(LOCAL, {"path": str(dags)}), other=(LOCAL, {"path": f"{tmp_path}/none"})):
        yield dags


def tree(name: str = "main") -> str | None:
    with compat.transaction() as session:
        row = session.get(BundleRow, name)
    return None if row is None else row.tree


def test_a_bundle_that_is_named_is_published_once(run: Run, dags: Path) -> None:
    printed = run("publish", "main")
    digest = tree()
    assert digest is not None
    assert printed.splitlines()[-1] == f"main: tree {digest[:12]} (files: 1, bytes: 6; new files: 1, packed bytes: 6)"


def test_all_are_published_and_a_failure_is_the_result_of_the_command(
    run: Run, dags: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("publish")
    assert ended.value.code == 1
    assert "other: not published: the directory" in capsys.readouterr().err
    assert tree() is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], r"no Dag bundle 'nothing' \(\[dag_processor\] dag_bundle_config_list\); it has: main, other"),
        (["main", "--every", "5"], "--every needs --watch"),
        (["main", "--watch", "--every", "0"], "--every must be 1 or more"),
    ],
)
def test_what_is_wrong_is_said(run: Run, dags: Path, words: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        run("publish", *words)


def test_to_the_server_that_the_environment_names_it_publishes_one_bundle_and_ends(
    run: Run, dags: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_REMOTE_SERVER", "https://airflow.example")
    monkeypatch.setenv("AIRFLOW_REMOTE_TOKEN", "ann")
    for words in ([], ["main", "--watch"]):
        with pytest.raises(SystemExit, match="with a server, name one Dag bundle"):
            run("publish", *words)


def test_a_watch_publishes_changes_and_gives_its_duties_up_when_it_is_terminated(run: Run, dags: Path) -> None:
    seen: list[object] = []

    def act() -> None:
        first = wait_for_another_tree(None)
        (dags / "etl.py").write_text("x = 2\n")
        seen.append(wait_for_another_tree(first) != first)
        os.kill(os.getpid(), signal.SIGTERM)

    acting = threading.Thread(target=act)
    acting.start()
    printed = run("publish", "main", "--watch", "--every", "1")
    acting.join()
    assert seen == [True]
    assert "publishing main" in printed.splitlines()
    with compat.transaction() as session:
        assert publishing_now(session, ["main"]) == set()


def wait_for_another_tree(before: str | None) -> str | None:
    until = time.monotonic() + 60
    while (now := tree()) == before and time.monotonic() < until:
        time.sleep(0.05)
    return now
