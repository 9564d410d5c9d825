"""Enrolment tokens over REST: the secret is shown once, and only to the user who made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testkit.ledger import audit_entries  # isort: skip

from airflow_remote_protocol.messages import Enrolment
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import credentials
from airflow_remote_provider.ledger.errors import TokenRefused

if TYPE_CHECKING:
    from .conftest import Users


def test_a_token_is_shown_once_and_lets_a_worker_join(users: Users) -> None:
    body = {"queues": ["a", "b", "a"], "name_pattern": "edge-*", "labels": {"site": "kiel"}, "bundles": ["plant"]}
    answer = users.ann("POST", "/enrolment-tokens", json={**body, "networks": ["10.1.0.0/16"], "uses": 2, "expires_s": 60})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert made["central"] == compat.base_url().rstrip("/")
    assert made["about"]["queues"] == ["a", "b"] and made["about"]["created_by"] == "ann"
    listed = users.ann.get("/enrolment-tokens")
    assert [row["id"] for row in listed.json()["items"]] == [made["about"]["id"]]
    assert made["token"] not in listed.text and "hash" not in listed.text
    with compat.transaction() as session:
        enrolled = credentials.enrol(session, made["token"], Enrolment("edge-1"), source="10.1.2.3")
    assert enrolled.queues == ["a", "b"]
    row = users.ann.ok("GET", "/workers/edge-1")
    assert (row["labels"], row["bundles"]) == ({"site": "kiel"}, ["plant"])
    assert made["token"] not in str(audit_entries())


def test_a_revoked_token_enrols_no_worker(users: Users) -> None:
    made = users.ann.ok("POST", "/enrolment-tokens", 201, json={"queues": ["a"]})
    users.ann.ok("DELETE", f"/enrolment-tokens/{made['about']['id']}", 204)
    with compat.transaction() as session, pytest.raises(TokenRefused):
        credentials.enrol(session, made["token"], Enrolment("edge-1"))
    assert [entry.actor for entry in audit_entries("action")] == ["ann", "ann"]
    assert users.ann("DELETE", "/enrolment-tokens/none").status_code == 404


def test_a_team_sees_its_own_tokens_and_those_of_no_team(users: Users) -> None:
    for team in ("blue", "red", None):
        users.ann.ok("POST", "/enrolment-tokens", 201, json={"queues": ["a"], "team": team})
    assert {row["team"] for row in users.tom.ok("GET", "/enrolment-tokens")["items"]} == {"blue", None}
    [red] = [row for row in users.ann.ok("GET", "/enrolment-tokens")["items"] if row["team"] == "red"]
    assert users.tom("DELETE", f"/enrolment-tokens/{red['id']}").status_code == 404
    assert red["revoked_at"] is None


@pytest.mark.parametrize(
    "body", [{"queues": []}, {"uses": 0}, {"expires_s": 0}, {"expires_s": 1e9}, {"networks": ["here"]}, {"team": ""}, {"x": 1}]
)
def test_an_invalid_token_request_is_refused_with_a_reason(users: Users, body: dict[str, object]) -> None:
    answer = users.ann("POST", "/enrolment-tokens", json={"queues": ["a"], **body})
    assert answer.status_code == 422 and answer.json()["detail"]
    assert users.ann.ok("GET", "/enrolment-tokens")["items"] == []
