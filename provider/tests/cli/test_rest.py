"""Every verb prints and does the same with a server as in this process."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from testkit.ledger import ago, change_job, empty_tables, enlist, queued, running  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties.recorder import Recorder
from airflow_remote_provider.cli.sign import keygen
from airflow_remote_provider.definitions.grants import Ask, GrantKind
from airflow_remote_provider.ledger import bundles, grants, queue_policy, queues, releases, rollouts, runtimes
from airflow_remote_provider.ledger.runtimes import Built, Recipe

from testkit.runtimes import LINUX, stored_tree

Run = Callable[..., str]

pytestmark = pytest.mark.parametrize("run", ["in_process"], indirect=True)
"""Tests here name the server themselves."""

JOBS = [
    ["--task", "task", "--dag", "dag", "--map-index", "-1", "--kind", "task"],
    ["--map-index", "0"],
    ["--text", "TAS", "--older-than", "10s"],
    ["--older-than", "1h"],
    ["--older-than", "old"],
]
KEY = "signing.key"
"""A private key in the directory in which these tests run."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    keygen(argparse.Namespace(out=directory / KEY))
    return directory


VERBS: dict[tuple[str, str], list[list[str]]] = {
    ("enrol", "create"): [["--queues", "a,b", "--labels", "site=kiel", "--networks", "10.1.0.0/16", "--uses", "3", "-o", "json"]],
    ("enrol", "list"): [[], ["-o", "json"]],
    ("enrol", "revoke"): [["<token>"], ["nothing"]],
    ("workers", "list"): [
        [],
        ["-o", "json"],
        ["-o", "yaml"],
        ["--text", "EDG", "--presence", "online", "--intent", "serve", "--queue", "q", "--label", "site=kiel"],
        ["--version", "9.9"],
        ["--flagged"],
        ["--label", "site"],
        ["--label", "a=b,c=d"],
    ],
    ("workers", "summary"): [[], ["-o", "json"]],
    ("workers", "history"): [[], ["-o", "json"], ["edge", "--last", "4h"], ["--last", "1000d"], ["--last", "soon"]],
    ("workers", "show"): [["edge"], ["edge", "-o", "json"], ["nobody"]],
    ("workers", "pause"): [["edge", "--for", "2h", "--reason", "patching"], ["nobody"]],
    ("workers", "resume"): [["edge"]],
    ("workers", "drain"): [["edge", "--reason", "goes"]],
    ("workers", "limit"): [["edge", "2"], ["edge", "-1"]],
    ("workers", "queues"): [["edge", "a, b,a"], ["edge", " , "]],
    ("workers", "labels"): [["edge", "a=b"], ["edge", ""]],
    ("workers", "bundles"): [["edge", "plant-*, x"], ["edge", "*"], ["edge", ""]],
    ("workers", "log"): [["edge"], ["edge", "--contains", "x", "--level", "error", "--limit", "5"], ["nobody"]],
    ("workers", "restart"): [["edge", "--reason", "odd"], ["nobody"]],
    ("workers", "update"): [["edge"], ["idle"], ["nobody"]],
    ("workers", "rotate"): [["edge"]],
    ("workers", "rebind"): [["edge"]],
    ("workers", "suspend"): [["edge", "--reason", "odd"]],
    ("workers", "unsuspend"): [["edge"]],
    ("workers", "acknowledge"): [["edge"]],
    ("workers", "revoke"): [["edge"]],
    ("workers", "remove"): [["idle", "--yes"], ["edge", "--yes"]],
    ("jobs", "list"): [[], ["--state", "queued", "--limit", "1"], ["--worker", "edge", "-o", "json"], ["--limit", "0"], *JOBS],
    ("jobs", "show"): [["waiting"], ["running", "-o", "yaml"], ["nothing"]],
    ("jobs", "why"): [["waiting"], ["nothing"]],
    ("jobs", "stop"): [["waiting", "--reason", "wrong data"], ["nothing"]],
    ("queues", "list"): [[], ["-o", "json"]],
    ("queues", "history"): [[], ["-o", "yaml"], ["q", "--last", "2d"]],
    ("queues", "set"): [
        ["ships/at sea", "--lost-after", "4h", "--bundles", "plant-*, x"],
        ["*", "--lost-after", "4h"],
        ["*", "--bundles", "plant"],
        ["q", "--bundles", " , "],
        ["q", "--runtime", "gpu"],
        ["q", "--runtime", "nothing"],
        ["q"],
    ],
    ("queues", "unset"): [["ruled"], ["unruled"]],
    ("bundles", "list"): [[], ["-o", "json"]],
    ("bundles", "show"): [["plant"], ["plant", "-o", "json"], ["nothing"]],
    ("bundles", "publish"): [["plant"], ["nothing"]],
    ("runtimes", "list"): [[], ["-o", "json"]],
    ("runtimes", "show"): [["gpu"], ["gpu", "-o", "json"], ["nothing"]],
    ("runtimes", "roll"): [
        ["gpu", "--percent", "5", "--label", "site=kiel"],
        ["gpu", "--to", "1"],
        ["gpu", "--halt"],
        ["nothing"],
    ],
    ("runtimes", "assign"): [["gpu", "q", "ruled"], ["nothing", "q"]],
    ("releases", "list"): [[], ["-o", "json"]],
    ("releases", "show"): [[], ["-o", "json"]],
    ("releases", "roll"): [["--percent", "5", "--label", "site=kiel"], ["--to", "1"], ["--halt"], ["--to", "9"]],
    ("sign", "tree"): [
        ["--runtime", "gpu", "--key", KEY],
        ["--runtime", "gpu", "--key", KEY, "--expires", "90d"],
        ["--bundle", "plant", "--key", KEY],
        ["--release", "--key", KEY],
        ["0" * 64, "--key", KEY],
        ["--key", KEY],
        ["--runtime", "gpu", "--key", "/no/such/key"],
    ],
    ("sign", "keys"): [[KEY + ".pub", "--serial", "1", "--key", KEY], [KEY, "--serial", "1", "--key", KEY]],
    ("sign", "show"): [["0" * 64]],
    ("grants", "list"): [[], ["-o", "json"]],
    ("grants", "allow"): [["q", "--connections", "plant_*", "--variables", "v"], ["q"]],
    ("grants", "deny"): [["ruled", "--connections", "c"], ["q", "--variables", "x"]],
    ("grants", "mode"): [["*", "audit"]],
    ("grants", "asked"): [[], ["--ungranted", "--dag", "dag", "-o", "json"]],
    ("grants", "suggest"): [["dag"], ["dag", "-o", "json"], ["another"]],
    ("alerts", "list"): [[], ["--all", "-o", "json"]],
    ("alerts", "show"): [["nothing"]],
    ("alerts", "acknowledge"): [["nothing"]],
    ("audit", "list"): [[], ["--kind", "action", "-o", "json"], ["--worker", "edge"]],
}
READING = {"asked", "history", "list", "log", "show", "suggest", "summary", "why"}
"""Verbs that change nothing: both ways answer about the same site."""
LOOKS = [
    (group, "list") for group in ("enrol", "workers", "jobs", "queues", "bundles", "runtimes", "releases", "grants", "audit")
]
HERE = {("publish",), ("runtimes", "build"), ("releases", "add"), ("sign", "keygen"), ("installer",)}
"""Commands that work with the files of this machine, and never call a server."""


def leaves(parser: argparse.ArgumentParser, *words: str) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, command in groups[0].choices.items() if groups else ():
        yield from leaves(command, *words, name)
    if not groups:
        yield words, parser


def commands() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    from airflow.cli import cli_parser

    (top,) = [action for action in cli_parser.get_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(leaves(top.choices["remote"]))


def test_every_command_takes_a_server_and_a_token_that_no_process_list_shows(run: Run) -> None:
    for words, command in commands().items():
        if words in HERE:
            continue
        flags = {flag for action in command._actions for flag in action.option_strings}
        assert {"--server", "--token-file", "--ca", "--insecure-http"} <= flags, words
        assert "--token" not in flags, words


def test_every_verb_is_in_the_table(run: Run) -> None:
    assert set(commands()) == set(VERBS) | HERE


@pytest.mark.parametrize("words", [(*verb, *more) for verb, cases in VERBS.items() for more in cases], ids=" ".join)
def test_a_verb_prints_and_does_the_same_in_either_way(
    run: Run, server: str, database: Engine, monkeypatch: pytest.MonkeyPatch, keys: Path, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(keys)
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    monkeypatch.setenv("AIRFLOW_REMOTE_TOKEN", "ann")
    token_id = _a_site()
    if words[1] in READING:
        in_process, with_server = (_without_chance(_printed(run, *words, "--server", way)) for way in ("", server))
        assert in_process == with_server
        return
    results = []
    for way in ("", server):
        if results:
            empty_tables(database)
            token_id = _a_site()
        printed = _printed(run, *(token_id if word == "<token>" else word for word in words), "--server", way)
        looks = [json.loads(run(*look, "-o", "json")) for look in LOOKS]
        results.append(_without_chance([printed, looks]))
    assert results[0] == results[1]


def _printed(run: Run, *words: str) -> str:
    try:
        return run(*words)
    except SystemExit as refused:
        assert isinstance(refused.code, str)
        return refused.code


def _without_chance(result: Any) -> str:
    """Return *result* without what differs each time: ids, secrets, times, and durations of waiting."""
    text = json.dumps(result, indent=1)
    for chance in (
        r"[0-9a-f]{8}-[0-9a-f-]{27}",
        r"arenr_[\w-]+",
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+:0-9]*",
        r"\d+ s\b",
        r"\b1\d{9}\b",
        r"\b\d\.\d+\b",
    ):
        text = re.sub(chance, "…", text)
    return re.sub(r"[ -]{2,}", "  ", text)  # a column is as wide as its longest value


def _a_site() -> str:
    """Make two workers, a job of one that was granted a secret and denied another, one that waits, rules; return a token's id."""
    from airflow_remote_provider.ledger import credentials

    busy = enlist("edge", ["q"], labels={"site": "kiel"})
    enlist("idle", capabilities=("task", "releases"), platform=LINUX)
    lease, begun_at = running(busy, job_id="running"), ago(seconds=30)
    change_job("running", queued_at=begun_at - timedelta(seconds=1.5), accepted_at=begun_at)
    queued("elsewhere", job_id="waiting")
    built = [Built(LINUX, stored_tree("the same each time"))]
    release = [Built(LINUX, stored_tree("a release", kind="release"))]
    with compat.transaction() as session:
        for _ in range(2):
            runtimes.add(session, "gpu", Recipe(), built, built_with={}, by="ann")
        queue_policy.allow(session, "q", {GrantKind.CONNECTIONS: ["open"]}, by="ann")
        for name in ("plant", "open"):
            grants.decide(session, lease.job_id, Ask(GrantKind.CONNECTIONS, (name,)))
        releases.add(session, "0.2.0", release, by="ann")
        rollouts.roll(session, rollouts.RELEASES, by="ann")
        bundles.note_trouble(session, "plant", "no process publishes it")
        bundles.want_version(session, "plant", "v1")
        Recorder(silent_after=timedelta(seconds=90)).record(session)
        queues.set_queue(session, "ruled", lost_after_s=60, by="ann")
        queue_policy.allow(session, "ruled", {GrantKind.CONNECTIONS: ["c"]}, by="ann")
        return next(row.id for row in credentials.list_tokens(session) if row.uses_left == 0)


def test_a_missing_right_is_named(run: Run, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    enlist("edge")
    monkeypatch.setenv("AIRFLOW_REMOTE_TOKEN", "vic")
    assert "edge" in run("workers", "list", "--server", server)
    with pytest.raises(SystemExit, match="the user 'vic' may not manage workers; this requires the right to create connections"):
        run("workers", "pause", "edge", "--server", server)


def test_pages_are_read_until_the_limit(run: Run, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_remote_provider.ledger.views.page.MOST_ROWS", 2)
    monkeypatch.setenv("AIRFLOW_REMOTE_TOKEN", "ann")
    for number in range(5):
        queued(job_id=f"job-{number}")
    for limit, rows in (("3", 3), ("4", 4), ("100", 5)):
        listed = json.loads(run("jobs", "list", "--limit", limit, "--server", server, "-o", "json"))
        assert len({row["id"] for row in listed}) == rows


def test_a_command_with_a_server_does_not_use_the_database(run: Run, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_remote_provider.cli import in_process

    monkeypatch.setattr(in_process, "connect", None)
    monkeypatch.setenv("AIRFLOW_REMOTE_TOKEN", "nobody")
    with pytest.raises(SystemExit, match="refuses the token"):
        run("workers", "list", "--server", server)
