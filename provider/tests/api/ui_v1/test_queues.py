"""Queues, their rules and their policies over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testkit.ledger import audited, enlist, queued  # isort: skip

if TYPE_CHECKING:
    from .conftest import People


def test_queues_are_listed_with_depth_and_rules(people: People) -> None:
    queued("a")
    people.ann.ok("PUT", "/queues/far/away/rules", 204, json={"lost_after_s": 7200})
    rows = {row["queue"]: row for row in people.vic.ok("GET", "/queues")["items"]}
    assert (rows["a"]["queued"], rows["far/away"]["lost_after_s"], rows["far/away"]["changed_by"]) == (1, 7200, "ann")
    assert people.vic.ok("GET", "/queues/far/away")["lost_after_s"] == 7200
    people.ann.ok("DELETE", "/queues/far/away/rules", 204)
    assert people.vic("GET", "/queues/far/away").status_code == 404
    assert [row["queue"] for row in people.vic.ok("GET", "/queues")["items"]] == ["a"]
    assert people.ann("DELETE", "/queues/far/away/rules").status_code == 404


@pytest.mark.parametrize("seconds", [1, 1e9, "soon"])
def test_a_silence_out_of_range_is_refused(people: People, seconds: object) -> None:
    assert people.ann("PUT", "/queues/q/rules", json={"lost_after_s": seconds}).status_code == 422


def test_a_policy_is_given_taken_back_and_audited(people: People) -> None:
    row = people.ann.ok("POST", "/policies/*/allow", json={"connections": ["plant_*"], "variables": ["v"]})
    assert (row["queue"], row["connections"], row["variables"], row["changed_by"]) == ("*", ["plant_*"], ["v"], "ann")
    assert people.ann.ok("POST", "/policies/*/deny", json={"variables": ["v"]})["variables"] == []
    assert people.ann.ok("PUT", "/policies/a/mode", json={"mode": "audit"})["mode"] == "audit"
    assert [row["queue"] for row in people.vic.ok("GET", "/policies")["items"]] == ["*", "a"]
    assert len(audited("action")) == 3


@pytest.mark.parametrize("body", [{}, {"connections": []}, {"connections": [""]}, {"conections": ["c"]}, {"dags": ["x" * 501]}])
def test_a_policy_that_says_nothing_is_refused(people: People, body: dict[str, object]) -> None:
    assert people.ann("POST", "/policies/q/allow", json=body).status_code == 422
    assert people.vic.ok("GET", "/policies")["items"] == []


def test_what_was_never_allowed_cannot_be_taken_back(people: People) -> None:
    answer = people.ann("POST", "/policies/q/deny", json={"connections": ["c"]})
    assert answer.status_code == 422 and "no connections 'c' to take back" in answer.json()["detail"]


POLICY_CHANGES = [
    ("POST", "/policies/{}/allow", {"connections": ["c"]}),
    ("POST", "/policies/{}/deny", {"connections": ["plant"]}),
    ("PUT", "/policies/{}/mode", {"mode": "audit"}),
    ("PUT", "/queues/{}/rules", {"lost_after_s": 120}),
]


def _as_it_is(people: People) -> object:
    return people.ann.ok("GET", "/policies")["items"], people.ann.ok("GET", "/queues")["items"]


@pytest.mark.parametrize(("method", "path", "body"), POLICY_CHANGES)
@pytest.mark.parametrize(("queue", "status"), [("reds", 404), ("unserved", 404), ("shared", 403), ("*", 403)])
def test_nobody_decides_about_the_queues_of_other_teams(
    people: People, method: str, path: str, body: dict[str, object], queue: str, status: int
) -> None:
    enlist("red", ["reds", "shared"], team="red")
    enlist("blue", ["blues", "shared"], team="blue")
    people.ann.ok("POST", f"/policies/{queue}/allow", json={"connections": ["plant"]})
    before = _as_it_is(people)
    answer = people.tom(method, path.format(queue), json=body)
    assert (answer.status_code, "red" in answer.text.replace("reds", "").replace("shared", "")) == (status, False), answer.text
    assert _as_it_is(people) == before


@pytest.mark.parametrize(("method", "path", "body"), POLICY_CHANGES)
@pytest.mark.parametrize("queue", ["blues", "of-none"])
def test_a_team_decides_about_its_own_queues_and_those_of_no_team(
    people: People, method: str, path: str, body: dict[str, object], queue: str
) -> None:
    enlist("blue", ["blues"], team="blue")
    enlist("anyones", ["of-none"])
    people.ann.ok("POST", f"/policies/{queue}/allow", json={"connections": ["plant"]})
    assert people.tom(method, path.format(queue), json=body).status_code < 300


def test_people_see_the_policies_of_their_teams_queues_and_that_of_all_queues(people: People) -> None:
    enlist("red", ["reds", "shared"], team="red")
    enlist("blue", ["blues", "shared"], team="blue")
    queued("waiting", team="blue")
    for queue in ("reds", "blues", "shared", "waiting", "unserved", "*"):
        people.ann.ok("POST", f"/policies/{queue}/allow", json={"connections": ["plant"]})
    assert [row["queue"] for row in people.tom.ok("GET", "/policies")["items"]] == ["*", "blues", "shared", "waiting"]
    assert len(people.ann.ok("GET", "/policies")["items"]) == 6
