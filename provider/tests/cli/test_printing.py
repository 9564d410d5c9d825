"""Output: for users, for programs, and repeated."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import pytest
import yaml

from testkit.ledger import enlist, queued  # isort: skip

from airflow_remote_provider.cli import printing
from airflow_remote_provider.cli.words import CentralUnavailable

pytestmark = pytest.mark.usefixtures("database")

Run = Callable[..., str]
LISTS = [
    ("enrol", "list"),
    ("workers", "list"),
    ("workers", "show", "edge"),
    ("jobs", "list"),
    ("queues", "list"),
    ("grants", "list"),
    ("grants", "asked"),
    ("grants", "suggest", "dag"),
    ("audit", "list"),
]


@pytest.mark.parametrize("words", LISTS)
def test_yaml_and_json_hold_the_same(run: Run, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_remote_provider.compat.newest_definitions", lambda session, dag_id: {})
    enlist("edge", labels={"site": "kiel"})
    queued()
    assert yaml.safe_load(run(*words, "-o", "yaml")) == json.loads(run(*words, "-o", "json"))


def test_a_new_token_is_printed_as_yaml_too(run: Run) -> None:
    created = yaml.safe_load(run("enrol", "create", "--queues", "a,b", "-o", "yaml"))
    assert created["token"].startswith("arenr_") and created["queues"] == ["a", "b"]


def test_a_list_is_printed_again_until_ctrl_c(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(printing.time, "sleep", sleep)
    enlist("edge")
    assert run("workers", "list", "--watch", "2").count("edge") == 3
    assert naps == [2, 2, 2]


def test_watching_continues_while_central_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(printing.time, "sleep", lambda seconds: None)
    turns = iter([None, CentralUnavailable("it can't be reached"), None, SystemExit("it refuses the token")])

    @printing.watched
    def command(args: argparse.Namespace) -> None:
        turn = next(turns)
        if turn is not None:
            raise turn
        print("edge")

    with pytest.raises(SystemExit, match="it refuses the token"):
        command(argparse.Namespace(watch=1))
    printed = capsys.readouterr()
    assert printed.out == "edge\nedge\n" and printed.err == "it can't be reached\n"


def test_a_central_that_never_answered_is_not_watched() -> None:
    @printing.watched
    def command(args: argparse.Namespace) -> None:
        raise CentralUnavailable("it can't be reached")

    with pytest.raises(CentralUnavailable):
        command(argparse.Namespace(watch=1))


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_watch_without_pauses_is_refused(run: Run, seconds: str) -> None:
    with pytest.raises(SystemExit, match=r"--watch must be 0\.1 or more"):
        run("workers", "list", f"--watch={seconds}")
