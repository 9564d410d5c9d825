"""`airflow remote grants …` through Airflow's own parser."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine

from testkit.ledger import enlist, running  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import Ask, GrantKind
from airflow_remote_provider.ledger import grants

pytestmark = pytest.mark.usefixtures("database")

Run = Callable[..., str]


@pytest.fixture
def run(run: Run) -> Run:
    """Run `airflow remote grants …`; return what it printed to stdout."""
    return partial(run, "grants")


@pytest.fixture
def asked(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job has asked for a connection and for other Dags' XComs, and was denied both."""
    monkeypatch.setattr(compat, "newest_definitions", lambda _session, _dag_id: {})
    job = running(enlist())
    with compat.transaction() as session:
        grants.decide(session, job.job_id, Ask(GrantKind.CONNECTIONS, ("plant",)))
        grants.decide(session, job.job_id, Ask(GrantKind.XCOMS_OF, ("other",)))


def _json(run: Run, *words: str) -> Any:
    return json.loads(run(*words, "--output", "json"))


def test_globs_of_every_kind_are_allowed_and_removed(run: Run) -> None:
    names = {kind: "site.Trigger" if kind is GrantKind.CODE_ON_CENTRAL else f"{kind.value}_1" for kind in GrantKind}
    words = [word for kind in GrantKind for word in (f"--{kind.value.replace('_', '-')}", names[kind])]
    printed = run("allow", "q", *words, "--connections", "plant_*")
    assert "q: connections: connections_1, plant_*" in printed and "q: xcoms_of: xcoms_of_1" in printed
    (row,) = _json(run, "list")
    assert row["connections"] == ["connections_1", "plant_*"] and row["writes"] == ["writes_1"] and row["changed_by"]
    assert run("deny", "q", *words) == "".join(
        f"q: {kind.value}: {'plant_*' if kind is GrantKind.CONNECTIONS else 'none'}\n" for kind in GrantKind
    )


def test_code_on_central_is_named_class_by_class(run: Run) -> None:
    for pattern in ("*", "site.*", "Trigger", "site.Trigger; import os"):
        with pytest.raises(SystemExit, match="not the import path of a class"):
            run("allow", "q", "--code-on-central", pattern)


def test_a_change_without_names_is_refused(run: Run) -> None:
    with pytest.raises(SystemExit, match="at least one of --connections"):
        run("allow", "q")


def test_removing_an_unknown_name_fails_with_a_sentence(run: Run) -> None:
    with pytest.raises(SystemExit, match="has no variables 'x' to take back"):
        run("deny", "q", "--variables", "x")


def test_the_mode_is_set_and_shown(run: Run) -> None:
    assert run("mode", "*", "audit") == "*: audit\n"
    header, line = run("list").splitlines()
    assert header.split()[:2] == ["QUEUE", "MODE"] and line.split()[:2] == ["*", "audit"]


@pytest.mark.usefixtures("asked")
def test_accesses_are_listed(run: Run) -> None:
    rows = _json(run, "asked")
    assert {(row["kind"], row["name"], row["answer"], row["worker"]) for row in rows} == {
        ("connections", "plant", "denied", "worker"),
        ("xcoms_of", "other", "denied", "worker"),
    }
    assert len(run("asked", "--dag", "dag", "--ungranted", "--limit", "1").splitlines()) == 2
    assert _json(run, "asked", "--dag", "another") == []


@pytest.mark.usefixtures("asked")
def test_the_declaration_is_printed_ready_to_paste(run: Run) -> None:
    assert run("suggest", "dag") == 'task:\n    executor_config={"remote": {"connections": ["plant"], "xcoms_of": ["other"]}}\n'
    assert _json(run, "suggest", "dag") == {"task": {"connections": ["plant"], "xcoms_of": ["other"]}}
    assert "nothing that is not granted" in run("suggest", "another")
