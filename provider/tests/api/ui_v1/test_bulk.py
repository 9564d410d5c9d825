"""Actions on many workers over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from testkit.ledger import audit_entries, enlist, offered  # isort: skip

if TYPE_CHECKING:
    from .conftest import Users


def test_an_action_is_done_to_each_worker_and_a_refusal_stops_no_other(users: Users) -> None:
    for name in ("a", "b", "busy"):
        enlist(name, [name])
    offered(enlist("busy-too", ["x"]), "x")
    body = {"action": "pause", "names": ["a", "nobody", "b", "a"], "reason": "patching", "lasts_s": 3600}
    answer = users.ann.ok("POST", "/workers/actions", json=body)
    assert (answer["done"], answer["refused"]) == (2, 1)
    assert [(one["name"], (one["problem"] or {}).get("code")) for one in answer["workers"]] == [
        ("a", None),
        ("nobody", "not-found"),
        ("b", None),
    ]
    rows = {row["name"]: row for row in users.vic.ok("GET", "/workers")["items"]}
    assert {name: row["intent"] for name, row in rows.items()} == {
        "a": "pause",
        "b": "pause",
        "busy": "serve",
        "busy-too": "serve",
    }
    assert rows["a"]["intent_reason"] == "patching" and rows["a"]["intent_until"]
    assert {entry.worker for entry in audit_entries("action") if "pause" in entry.detail} == {"a", "b"}
    removed = users.ann.ok("POST", "/workers/actions", json={"action": "remove", "names": ["busy-too", "busy"]})
    assert (removed["done"], removed["refused"]) == (1, 1)
    assert "drain it first" in removed["workers"][0]["problem"]["detail"]


@pytest.mark.parametrize("action", ["serve", "pause", "drain", "rotate", "suspend", "revoke", "remove"])
def test_every_action_is_done(users: Users, action: str) -> None:
    enlist("a")
    assert users.ann.ok("POST", "/workers/actions", json={"action": action, "names": ["a"]})["done"] == 1


def test_workers_of_another_team_are_unknown(users: Users) -> None:
    enlist("red", team="red")
    enlist("blue", team="blue")
    answer = users.tom.ok("POST", "/workers/actions", json={"action": "pause", "names": ["red", "blue"]})
    assert [(one["problem"] or {}).get("code") for one in answer["workers"]] == ["not-found", None]


def test_a_user_who_can_only_read_is_refused(users: Users) -> None:
    enlist("a")
    answer = users.vic("POST", "/workers/actions", json={"action": "pause", "names": ["a"]})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "body", [{"names": []}, {"action": "dance"}, {"names": ["x"] * 501}, {"lasts_s": -1}, {"more": 1}, {"names": [""]}]
)
def test_invalid_requests_are_refused(users: Users, body: dict[str, Any]) -> None:
    enlist("a")
    assert users.ann("POST", "/workers/actions", json={"action": "pause", "names": ["a"], **body}).status_code == 422
