"""Rules and depths of queues."""

from __future__ import annotations

import pytest

from testkit.ledger import enlist, offered, queued, running  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import queue_policy, queues
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.queues import QueueDepth

pytestmark = pytest.mark.usefixtures("database")


def _set(name: str, seconds: float, by: str = "ann") -> None:
    with compat.transaction() as session:
        queues.set_queue(session, name, lost_after_s=seconds, by=by)


def _rows() -> dict[str, QueueDepth]:
    with compat.transaction() as session:
        return {row.queue: row for row in queues.depths(session)}


def _rules() -> dict[str, tuple[float, str]]:
    with compat.transaction() as session:
        return {name: (rule.lost_after_s, rule.changed_by) for name, rule in queues.rules(session).items()}


def test_queues_show_their_depth() -> None:
    worker = enlist(queues=["a", "b"])
    running(worker, "b")
    running(worker, "a")
    offered(worker, "a")
    queued("z")
    rows = {name: (row.queued, row.offered, row.running, row.oldest_queued_at is None) for name, row in _rows().items()}
    assert rows == {"a": (0, 1, 1, True), "b": (0, 0, 1, True), "z": (1, 0, 0, False)}


def test_each_team_has_its_own_depth() -> None:
    for team in (None, "red", "red"):
        queued("q", team=team)
    with compat.transaction() as session:
        assert {row.team: row.queued for row in queues.depths(session)} == {None: 1, "red": 2}


def test_a_rule_holds_until_it_is_removed() -> None:
    _set("ships", 14_400)
    _set("ships", 7_200, by="bob")
    assert _rules() == {"ships": (7_200, "bob")}
    with compat.transaction() as session:
        queues.unset_queue(session, "ships")
    assert _rules() == {}


def test_the_policy_of_a_queue_outlives_its_rule() -> None:
    _set("ships", 60)
    with compat.transaction() as session:
        queue_policy.set_mode(session, "ships", queue_policy.Mode.AUDIT, by="ann")
        queues.unset_queue(session, "ships")
    assert _rules() == {}
    with compat.transaction() as session:
        assert queue_policy.policy_of(session, "ships").mode is queue_policy.Mode.AUDIT
        with pytest.raises(NotFound):
            queues.unset_queue(session, "ships")


def test_case_counts_in_a_queues_name() -> None:
    _set("GPU", 60)
    _set("gpu", 120)
    assert _rules() == {"GPU": (60, "ann"), "gpu": (120, "ann")}


def test_removing_a_missing_rule_is_refused() -> None:
    with pytest.raises(NotFound, match="queues list"), compat.transaction() as session:
        queues.unset_queue(session, "never")


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_a_bad_name_of_a_queue_is_refused(name: str) -> None:
    with pytest.raises(LedgerError, match="1 to 256 characters"):
        _set(name, 60)


def test_a_rule_for_all_queues_is_refused_with_the_option_to_set() -> None:
    with pytest.raises(LedgerError, match="lost_after_seconds"):
        _set(queues.ALL_QUEUES, 60)
