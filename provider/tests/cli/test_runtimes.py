"""`airflow remote runtimes …` and `queues set --runtime` through Airflow's own parser."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from testkit.ledger import enlist  # isort: skip

from testkit.runtimes import LINUX, build, edition

pytestmark = pytest.mark.usefixtures("database")


def test_runtimes_are_listed_and_shown(run: Callable[..., str]) -> None:
    build()
    enlist("edge", capabilities=("task", "runtimes"), platform=LINUX)
    table = run("runtimes", "list")
    assert "default" in table and LINUX in table
    (row,) = json.loads(run("runtimes", "list", "--output", "json"))
    assert (row["name"], row["serial"], row["workers"]) == ("default", 1, 1)
    shown = run("runtimes", "show", "default")
    assert edition("default", 1)[:12] in shown and edition("default", 1) not in shown
    assert "the worker has not begun to prepare serial 1" in shown
    assert json.loads(run("runtimes", "show", "default", "--output", "json"))["editions"][0]["tree"] == edition("default", 1)


def test_a_rollout_says_what_follows_from_it(run: Callable[..., str]) -> None:
    build()
    build()
    assert run("runtimes", "roll", "default", "--percent", "10", "--label", "site=lab") == (
        "default: serial 2 is rolled out to 10 % of the workers with site=lab; the others are to have serial 1. "
        "0 of 0 worker(s) have theirs ready\n"
    )
    assert "serial 2 is halted (by" in run("runtimes", "roll", "default", "--halt", "--reason", "slow")
    assert "rolled out to 10 % of the workers" in run("runtimes", "roll", "default", "--resume")
    assert "serial 2 is rolled out to all workers." in run("runtimes", "roll", "default")
    assert "serial 3 is rolled out to all workers." in run("runtimes", "roll", "default", "--to", "1")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["default", "--halt", "--resume"], "name only one of"),
        (["default", "--halt", "--percent", "5"], "name only one of"),
        (["default", "--label", "site"], "is not a label"),
        (["nope"], "no runtime named 'nope'"),
        (["default", "--resume"], "is not halted"),
    ],
)
def test_what_can_t_be_done_is_refused_with_the_reason(run: Callable[..., str], words: list[str], text: str) -> None:
    build()
    with pytest.raises(SystemExit, match=text):
        run("runtimes", "roll", *words)


def test_queues_are_assigned_to_a_runtime(run: Callable[..., str]) -> None:
    build("gpu")
    enlist(queues=["a", "b"])
    assert run("runtimes", "assign", "gpu", "a", "b").splitlines() == [
        f"{queue}: jobs offered from now on run in the runtime gpu, on workers that take it from central" for queue in "ab"
    ]
    rows = json.loads(run("queues", "list", "--output", "json"))
    assert [(row["queue"], row["runtime"]) for row in rows] == [("a", "gpu"), ("b", "gpu")]
    run("queues", "set", "a", "--runtime", "default")
    assert json.loads(run("queues", "list", "--output", "json"))[0]["runtime"] is None
