"""Queues, their rules and their policies over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testkit.ledger import audit_entries, enlist, queued  # isort: skip

if TYPE_CHECKING:
    from .conftest import Users


def test_queues_are_listed_with_depth_and_rules(users: Users) -> None:
    queued("a")
    users.ann.ok("PUT", "/queues/far/away/rules", 204, json={"lost_after_s": 7200})
    rows = {row["queue"]: row for row in users.vic.ok("GET", "/queues")["items"]}
    assert (rows["a"]["queued"], rows["far/away"]["lost_after_s"], rows["far/away"]["changed_by"]) == (1, 7200, "ann")
    assert users.vic.ok("GET", "/queues/far/away")["lost_after_s"] == 7200
    users.ann.ok("DELETE", "/queues/far/away/rules", 204)
    assert users.vic("GET", "/queues/far/away").status_code == 404
    assert [row["queue"] for row in users.vic.ok("GET", "/queues")["items"]] == ["a"]
    assert users.ann("DELETE", "/queues/far/away/rules").status_code == 404


def test_the_bundles_of_a_queue_are_set_shown_and_reset(users: Users) -> None:
    users.ann.ok("PUT", "/queues/far/bundles", 204, json={"bundles": ["plant-*", "x"]})
    assert users.vic.ok("GET", "/queues/far")["bundles"] == ["plant-*", "x"]
    assert [entry.detail for entry in audit_entries("action")] == ["set the bundles of the queue far to plant-*, x"]
    users.ann.ok("DELETE", "/queues/far/rules", 204)
    assert users.vic("GET", "/queues/far").status_code == 404
    assert users.ann("PUT", "/queues/far/bundles", json={"bundles": []}).status_code == 422


@pytest.mark.parametrize("seconds", [1, 1e9, "soon"])
def test_a_lost_after_out_of_range_is_refused(users: Users, seconds: object) -> None:
    assert users.ann("PUT", "/queues/q/rules", json={"lost_after_s": seconds}).status_code == 422


def test_a_policy_is_changed_reverted_and_audited(users: Users) -> None:
    row = users.ann.ok("POST", "/policies/*/allow", json={"connections": ["plant_*"], "variables": ["v"]})
    assert (row["queue"], row["connections"], row["variables"], row["changed_by"]) == ("*", ["plant_*"], ["v"], "ann")
    assert users.ann.ok("POST", "/policies/*/deny", json={"variables": ["v"]})["variables"] == []
    assert users.ann.ok("PUT", "/policies/a/mode", json={"mode": "audit"})["mode"] == "audit"
    assert [row["queue"] for row in users.vic.ok("GET", "/policies")["items"]] == ["*", "a"]
    assert len(audit_entries("action")) == 3


@pytest.mark.parametrize("body", [{}, {"connections": []}, {"connections": [""]}, {"conections": ["c"]}, {"dags": ["x" * 501]}])
def test_an_empty_policy_is_refused(users: Users, body: dict[str, object]) -> None:
    assert users.ann("POST", "/policies/q/allow", json=body).status_code == 422
    assert users.vic.ok("GET", "/policies")["items"] == []


def test_a_name_that_was_not_granted_can_not_be_removed(users: Users) -> None:
    answer = users.ann("POST", "/policies/q/deny", json={"connections": ["c"]})
    assert answer.status_code == 422 and "no connections 'c' to take back" in answer.json()["detail"]


POLICY_CHANGES = [
    ("POST", "/policies/{}/allow", {"connections": ["c"]}),
    ("POST", "/policies/{}/deny", {"connections": ["plant"]}),
    ("PUT", "/policies/{}/mode", {"mode": "audit"}),
    ("PUT", "/queues/{}/rules", {"lost_after_s": 120}),
]


def _as_it_is(users: Users) -> object:
    return users.ann.ok("GET", "/policies")["items"], users.ann.ok("GET", "/queues")["items"]


@pytest.mark.parametrize(("method", "path", "body"), POLICY_CHANGES)
@pytest.mark.parametrize(("queue", "status"), [("reds", 404), ("unserved", 404), ("shared", 403), ("*", 403)])
def test_queues_of_other_teams_can_not_be_changed(
    users: Users, method: str, path: str, body: dict[str, object], queue: str, status: int
) -> None:
    enlist("red", ["reds", "shared"], team="red")
    enlist("blue", ["blues", "shared"], team="blue")
    users.ann.ok("POST", f"/policies/{queue}/allow", json={"connections": ["plant"]})
    before = _as_it_is(users)
    answer = users.tom(method, path.format(queue), json=body)
    assert (answer.status_code, "red" in answer.text.replace("reds", "").replace("shared", "")) == (status, False), answer.text
    assert _as_it_is(users) == before


@pytest.mark.parametrize(("method", "path", "body"), POLICY_CHANGES)
@pytest.mark.parametrize("queue", ["blues", "of-none"])
def test_a_team_may_change_its_own_queues_and_those_of_no_team(
    users: Users, method: str, path: str, body: dict[str, object], queue: str
) -> None:
    enlist("blue", ["blues"], team="blue")
    enlist("shared", ["of-none"])
    users.ann.ok("POST", f"/policies/{queue}/allow", json={"connections": ["plant"]})
    assert users.tom(method, path.format(queue), json=body).status_code < 300


def test_users_see_the_policies_of_their_teams_queues_and_that_of_all_queues(users: Users) -> None:
    enlist("red", ["reds", "shared"], team="red")
    enlist("blue", ["blues", "shared"], team="blue")
    queued("waiting", team="blue")
    for queue in ("reds", "blues", "shared", "waiting", "unserved", "*"):
        users.ann.ok("POST", f"/policies/{queue}/allow", json={"connections": ["plant"]})
    assert [row["queue"] for row in users.tom.ok("GET", "/policies")["items"]] == ["*", "blues", "shared", "waiting"]
    assert len(users.ann.ok("GET", "/policies")["items"]) == 6
