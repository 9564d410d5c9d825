"""Policies of queues."""

from __future__ import annotations

import logging

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import Ask, GrantKind
from airflow_remote_provider.ledger import queue_policy, queues
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.queue_policy import BadGlob, Mode, Policy
from airflow_remote_provider.ledger.queues import ALL_QUEUES

pytestmark = pytest.mark.usefixtures("database")

PLANT = Ask(GrantKind.CONNECTIONS, ("plant_7",))


def _allow(queue: str, **globs: list[str]) -> queue_policy.PolicyRow:
    with compat.transaction() as session:
        return queue_policy.allow(session, queue, {GrantKind(kind): some for kind, some in globs.items()}, by="ada")


def _deny(queue: str, **globs: list[str]) -> queue_policy.PolicyRow:
    with compat.transaction() as session:
        return queue_policy.deny(session, queue, {GrantKind(kind): some for kind, some in globs.items()}, by="ada")


def _mode(queue: str, mode: Mode) -> None:
    with compat.transaction() as session:
        queue_policy.set_mode(session, queue, mode, by="ada")


def _policy(queue: str = "q") -> Policy:
    with compat.transaction() as session:
        return queue_policy.policy_of(session, queue)


def test_a_queue_without_a_policy_grants_nothing_and_enforces() -> None:
    assert _policy().mode is Mode.ENFORCE
    assert not _policy().grant


def test_an_allowed_glob_applies_to_its_queue_only() -> None:
    _allow("q", connections=["plant_*"])
    assert _policy().grant.allows(PLANT)
    assert not _policy("Q").grant.allows(PLANT)


def test_allowing_adds_and_repeats_change_nothing() -> None:
    _allow("q", connections=["b"], variables=["v"])
    row = _allow("q", connections=["a", "b"])
    assert (row.connections, row.variables, row.changed_by) == (["a", "b"], ["v"], "ada")


def test_deny_withdraws_an_allowed_glob() -> None:
    _allow("q", connections=["a", "plant_*"])
    assert _deny("q", connections=["plant_*"]).connections == ["a"]
    assert not _policy().grant.allows(PLANT)


def test_denying_an_unknown_glob_names_the_existing_ones() -> None:
    _allow("q", connections=["plant_*"])
    with pytest.raises(BadGlob, match=r"'q' has no connections 'plant_7' to take back; it has: plant_\*"):
        _deny("q", connections=["plant_7"])
    with pytest.raises(BadGlob, match="has no variables 'x' to take back; it has: none"):
        _deny("other", variables=["x"])


def test_the_policy_of_all_queues_is_added_to_each() -> None:
    _allow(ALL_QUEUES, connections=["plant_*"])
    _allow("q", connections=["x"])
    assert _policy().grant.allows(PLANT) and _policy("other").grant.allows(PLANT)
    assert not _policy("other").grant.allows(Ask(GrantKind.CONNECTIONS, ("x",)))


def test_the_mode_of_a_queue_overrides_that_of_all_queues() -> None:
    _mode(ALL_QUEUES, Mode.AUDIT)
    _allow("q", connections=["x"])
    assert (_policy("q").mode, _policy("other").mode) == (Mode.AUDIT, Mode.AUDIT)
    _mode("q", Mode.ENFORCE)
    assert (_policy("q").mode, _policy("other").mode) == (Mode.ENFORCE, Mode.AUDIT)


@pytest.mark.parametrize("glob", ["", "  ", "x" * 501])
def test_bad_globs_are_refused(glob: str) -> None:
    with pytest.raises(BadGlob):
        _allow("q", connections=["fine", glob])
    assert not _policy().grant


@pytest.mark.parametrize("queue", ["", "x" * 257])
def test_a_bad_name_of_a_queue_is_refused(queue: str) -> None:
    with pytest.raises(LedgerError, match="1 to 256"):
        _mode(queue, Mode.AUDIT)


def test_changes_are_logged_and_audited(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _allow("q", connections=["plant_*"])
        _mode("q", Mode.AUDIT)
    assert "'q' was changed by ada: allow {'connections': ['plant_*']}" in caplog.text
    assert "'q' was changed by ada: mode audit" in caplog.text


def test_policies_are_listed() -> None:
    _mode("b", Mode.AUDIT)
    _allow("a", dags=["d"], xcoms_of=["x"], writes=["w"], assets=["s3://*"])
    with compat.transaction() as session:
        first, second = queue_policy.list_policies(session)
    assert (first.queue, first.mode, first.dags, first.xcoms_of, first.writes, first.assets) == (
        "a",
        None,
        ["d"],
        ["x"],
        ["w"],
        ["s3://*"],
    )
    assert (second.queue, second.mode, second.connections) == ("b", "audit", [])


# Which Dag bundles the jobs of a queue may belong to


def rules_of(**globs: list[str] | None) -> queue_policy.BundleRules:
    with compat.transaction() as session:
        for queue, some in globs.items():
            queue_policy.set_bundles(session, "*" if queue == "every" else queue, some, by="ann")
    with compat.transaction() as session:
        return queue_policy.bundle_rules(session)


def test_a_queue_without_a_rule_may_run_any_bundle() -> None:
    rules = rules_of(ships=["plant-*"], far=["*"])
    assert rules.globs == {"ships": ("plant-*",)}
    assert rules.refusal("far", "anything") is None
    assert rules.refusal("ships", "plant-kiel") is None
    assert rules.refusal("ships", None) is None


def test_a_job_of_another_bundle_is_refused_with_the_rule_and_the_remedy() -> None:
    assert rules_of(ships=["plant-*", "x"]).refusal("ships", "finance") == (
        "jobs of the queue 'ships' may not run code of the Dag bundle 'finance': "
        "the rule of the queue 'ships' allows plant-*, x. "
        "Give the task another queue, or change the rule: airflow remote queues set 'ships' --bundles …"
    )


def test_a_queues_own_rule_overrides_that_of_all_queues() -> None:
    rules = rules_of(every=["plant-*"], ships=["finance"])
    assert rules.refusal("ships", "finance") is None
    assert "the rule of all queues allows plant-*" in (rules.refusal("far", "finance") or "")


def test_a_rule_is_removed_with_the_other_rules_of_its_queue() -> None:
    rules_of(ships=["x"])
    with compat.transaction() as session:
        queues.unset_queue(session, "ships")
    assert rules_of().globs == {}


@pytest.mark.parametrize("globs", [[], [" "], ["x" * 251]])
def test_globs_that_are_not_valid_are_refused(globs: list[str]) -> None:
    with pytest.raises(LedgerError):
        rules_of(ships=globs)
