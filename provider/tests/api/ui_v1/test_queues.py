"""Queues, their rules and their policies over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testkit.ledger import audited, queued  # isort: skip

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
