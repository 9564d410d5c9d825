"""One wish for many workers over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from testkit.ledger import audited, enlist, offered  # isort: skip

if TYPE_CHECKING:
    from .conftest import People


def test_what_is_wished_is_done_to_each_and_one_that_is_refused_stops_no_other(people: People) -> None:
    for name in ("a", "b", "busy"):
        enlist(name, [name])
    offered(enlist("busy-too", ["x"]), "x")
    wish = {"action": "pause", "names": ["a", "nobody", "b", "a"], "reason": "patching", "lasts_s": 3600}
    told = people.ann.ok("POST", "/workers/actions", json=wish)
    assert (told["done"], told["refused"]) == (2, 1)
    assert [(one["name"], (one["problem"] or {}).get("code")) for one in told["workers"]] == [
        ("a", None),
        ("nobody", "not-found"),
        ("b", None),
    ]
    rows = {row["name"]: row for row in people.vic.ok("GET", "/workers")["items"]}
    assert {name: row["intent"] for name, row in rows.items()} == {
        "a": "pause",
        "b": "pause",
        "busy": "serve",
        "busy-too": "serve",
    }
    assert rows["a"]["intent_reason"] == "patching" and rows["a"]["intent_until"]
    assert {entry.worker for entry in audited("action") if "pause" in entry.detail} == {"a", "b"}
    removed = people.ann.ok("POST", "/workers/actions", json={"action": "remove", "names": ["busy-too", "busy"]})
    assert (removed["done"], removed["refused"]) == (1, 1)
    assert "drain it first" in removed["workers"][0]["problem"]["detail"]


@pytest.mark.parametrize("action", ["serve", "pause", "drain", "rotate", "suspend", "revoke", "remove"])
def test_every_action_is_done(people: People, action: str) -> None:
    enlist("a")
    assert people.ann.ok("POST", "/workers/actions", json={"action": action, "names": ["a"]})["done"] == 1


def test_of_another_teams_workers_it_knows_none(people: People) -> None:
    enlist("red", team="red")
    enlist("blue", team="blue")
    told = people.tom.ok("POST", "/workers/actions", json={"action": "pause", "names": ["red", "blue"]})
    assert [(one["problem"] or {}).get("code") for one in told["workers"]] == ["not-found", None]


def test_who_may_only_see_is_refused_for_each(people: People) -> None:
    enlist("a")
    told = people.vic("POST", "/workers/actions", json={"action": "pause", "names": ["a"]})
    assert told.status_code == 403


@pytest.mark.parametrize(
    "wish", [{"names": []}, {"action": "dance"}, {"names": ["x"] * 501}, {"lasts_s": -1}, {"more": 1}, {"names": [""]}]
)
def test_what_makes_no_sense_is_refused(people: People, wish: dict[str, Any]) -> None:
    enlist("a")
    assert people.ann("POST", "/workers/actions", json={"action": "pause", "names": ["a"], **wish}).status_code == 422
