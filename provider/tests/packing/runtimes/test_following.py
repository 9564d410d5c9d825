"""When a runtime is built again, and a release added, without a command."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

from airflow_remote_provider.ledger.releases import ReleaseRecord
from airflow_remote_provider.ledger.runtimes import Recipe, RuntimeEdition, RuntimeRecord
from airflow_remote_provider.packing.runtimes.following import Due, find_due, find_due_release, wait_s

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)
VERSIONS = {"airflow": "3.3.2", "task_sdk": "1.3.2", "provider": "0.1.0"}
LINUX, WINDOWS = "cp311-linux-gnu-x86_64", "cp312-windows-x86_64"


FOLLOWING = Recipe()


def record(recipe: Recipe = FOLLOWING, built_with: dict[str, str] = VERSIONS, *, built: int = 1) -> RuntimeRecord:
    editions = (RuntimeEdition(1, LINUX, "0" * 64, 1, 1, NOW),) if built else ()
    return RuntimeRecord("default", recipe, 1, 0, built, 100, None, "", built_with, NOW, "ann", editions=editions)


def test_other_versions_of_central_build_all_platforms() -> None:
    assert find_due(record(), [LINUX], VERSIONS) is None
    due = find_due(record(), [LINUX], {**VERSIONS, "airflow": "3.3.3"})
    assert due == Due((), "airflow 3.3.2 → 3.3.3")


def test_an_older_process_leaves_it_to_the_newer_ones() -> None:
    assert find_due(record(), [LINUX, WINDOWS], {**VERSIONS, "airflow": "3.3.1"}) is None


def test_a_users_build_that_is_not_rolled_out_is_not_taken_along() -> None:
    newer = {**VERSIONS, "airflow": "3.3.3"}
    assert find_due(replace(record(), built=2), [LINUX], newer) is None
    assert find_due(replace(record(), built=2, updated_by="follow"), [LINUX], newer) is not None


def test_a_platform_that_failed_is_tried_again() -> None:
    assert find_due(record(built_with={**VERSIONS, "failed": WINDOWS}), [LINUX], VERSIONS) == Due((), f"not built: {WINDOWS}")


def test_a_new_platform_of_the_fleet_is_added() -> None:
    assert find_due(record(), [LINUX, WINDOWS], VERSIONS) == Due((WINDOWS,), f"no edition for {WINDOWS}")
    named = record(Recipe(platforms=(LINUX,)))
    assert find_due(named, [LINUX, WINDOWS], VERSIONS) is None  # a user chose its platforms


def test_what_does_not_follow_or_was_never_built_is_left_alone() -> None:
    newer = {**VERSIONS, "airflow": "3.3.3"}
    assert find_due(record(Recipe(follow=False)), [WINDOWS], newer) is None
    assert find_due(record(built=0), [WINDOWS], newer) is None


RELEASED = ReleaseRecord(
    serial=1,
    built=1,
    updated_by="ann",
    follow=True,
    built_with={"provider": "0.1.0"},
    versions={"0" * 64: "0.1.0"},
    editions=record().editions,
)
OURS = {"provider": "0.1.0"}


def test_a_newer_provider_adds_its_release_for_all_platforms() -> None:
    assert find_due_release(RELEASED, [LINUX], OURS) is None
    assert find_due_release(RELEASED, [LINUX], {"provider": "0.2.0"}) == Due((), "provider 0.1.0 → 0.2.0")
    assert find_due_release(replace(RELEASED, built_with={}), [LINUX], OURS) == Due((), "provider ? → 0.1.0")
    assert find_due_release(RELEASED, [LINUX], {"provider": "0.0.9"}) is None


def test_an_older_release_that_a_user_chose_stays_until_central_is_upgraded() -> None:
    chosen = replace(RELEASED, versions={"0" * 64: "0.0.5"})
    assert find_due_release(chosen, [LINUX], OURS) is None
    assert find_due_release(chosen, [LINUX], {"provider": "0.2.0"}) is not None


def test_a_new_platform_gets_the_version_of_the_others() -> None:
    chosen = replace(RELEASED, versions={"0" * 64: "0.0.5"})
    due = find_due_release(chosen, [LINUX, "cp312-macos-aarch64"], OURS)
    assert due == Due(("cp312-macos-aarch64",), "no edition for cp312-macos-aarch64", "0.0.5")


def test_a_release_that_waits_for_a_user_or_does_not_follow_is_left_alone() -> None:
    newer = {"provider": "0.2.0"}
    assert find_due_release(replace(RELEASED, built=2), [LINUX], newer) is None
    assert find_due_release(replace(RELEASED, built=2, updated_by="follow"), [LINUX], newer) is not None
    assert find_due_release(replace(RELEASED, follow=False), [WINDOWS], newer) is None


def test_failures_are_repeated_at_growing_intervals() -> None:
    assert [wait_s(failures) for failures in (1, 2, 3, 100)] == [300, 600, 1200, 6 * 3600]
