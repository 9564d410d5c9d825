"""Runtimes from central over REST: read, rolled out, halted, resumed, rolled back, and named by queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testkit.ledger import audit_entries, enlist  # isort: skip

from testkit.runtimes import LINUX, build, edition

if TYPE_CHECKING:
    from .conftest import Users


def test_runtimes_are_listed_and_shown_to_users_who_may_see_workers(users: Users) -> None:
    build()
    (listed,) = users.vic.ok("GET", "/runtimes")["items"]
    assert (listed["name"], listed["serial"], listed["platforms"]) == ("default", 1, [LINUX])
    shown = users.vic.ok("GET", "/runtimes/default")
    assert shown["about"] == listed
    assert [(one["serial"], one["tree"]) for one in shown["editions"]] == [(1, edition("default", 1))]
    assert users.vic.get("/runtimes/nope").status_code == 404
    assert "airflow remote runtimes build nope" in users.vic.get("/runtimes/nope").json()["detail"]
    assert users.vic.get("/runtimes/NOPE").status_code == 422


def test_a_rollout_is_begun_halted_resumed_and_rolled_back(users: Users) -> None:
    build()
    build()
    rolled = users.ann.ok("POST", "/runtimes/default/roll", json={"percent": 10, "labels": {"site": "lab"}})
    assert (rolled["serial"], rolled["previous"], rolled["percent"], rolled["labels"]) == (2, 1, 10, {"site": "lab"})
    assert users.ann.ok("POST", "/runtimes/default/halt", json={"reason": "slow"})["halted"] == "by ann: slow"
    assert users.ann("POST", "/runtimes/default/halt", json={}).status_code == 422
    assert users.ann.ok("POST", "/runtimes/default/resume")["halted"] == ""
    assert users.ann.ok("POST", "/runtimes/default/roll", json={"to": 1})["serial"] == 3
    assert [entry.detail for entry in audit_entries("action")][::-1][2:] == [
        'rolled serial 2 of the runtime \'default\' out to 10 % of the workers with {"site":"lab"}',
        "halted serial 2 of the runtime 'default': slow",
        "resumed the rollout of serial 2 of the runtime 'default', which was halted: by ann: slow",
        "rolled serial 3 of the runtime 'default' out to 100 % of the workers",
    ]


@pytest.mark.parametrize(
    "body", [{"percent": 101}, {"percent": -1}, {"percent": 1.5}, {"to": 0}, {"labels": {"a,b": "c"}}, {"serial": 1}]
)
def test_a_bad_rollout_is_refused(users: Users, body: dict[str, object]) -> None:
    build()
    assert users.ann("POST", "/runtimes/default/roll", json=body).status_code == 422


@pytest.mark.parametrize("verb", ["roll", "halt", "resume"])
def test_only_users_who_manage_workers_may_change_a_rollout(users: Users, verb: str) -> None:
    build()
    build()
    assert users.vic("POST", f"/runtimes/default/{verb}", json={}).status_code == 403
    assert users.vic("PUT", "/queues/q/runtime", json={"runtime": "default"}).status_code == 403


def test_a_rollout_for_workers_of_a_foreign_team_requires_the_right_for_that_team(users: Users) -> None:
    build()
    build()
    enlist("edge", capabilities=("task", "runtimes"), platform=LINUX, team="green")
    answer = users.tom("POST", "/runtimes/default/roll", json={})
    assert answer.status_code == 403, answer.text
    assert "green" not in answer.json()["detail"]


def test_the_runtime_of_a_queue_is_set_shown_and_reset(users: Users) -> None:
    build("gpu")
    enlist(queues=["q"])
    users.ann.ok("PUT", "/queues/q/runtime", 204, json={"runtime": "gpu"})
    assert users.vic.ok("GET", "/queues/q")["runtime"] == "gpu"
    assert users.vic.ok("GET", "/runtimes/gpu")["about"]["queues"] == ["q"]
    assert users.ann("PUT", "/queues/q/runtime", json={"runtime": "nope"}).status_code == 404
    assert users.ann("PUT", "/queues/q/runtime", json={"runtime": "NO"}).status_code == 422
    users.ann.ok("PUT", "/queues/q/runtime", 204, json={"runtime": None})
    assert users.vic.ok("GET", "/queues/q")["runtime"] is None
    users.ann.ok("PUT", "/queues/q/runtime", 204, json={"runtime": "gpu"})
    users.ann.ok("DELETE", "/queues/q/rules", 204)
    assert users.vic.ok("GET", "/queues/q")["runtime"] is None
