"""Who may have killed a trigger host."""

from __future__ import annotations

from airflow_remote_worker.triggers.suspects import REMEMBER_S, WITHIN_S, Suspects


def test_one_death_makes_no_suspect() -> None:
    suspects = Suspects()
    assert not suspects.note_death("dags", ["a", "b"], 0.0)
    assert not suspects.is_suspect("a", 1.0)


def test_a_second_death_of_the_same_bundle_within_a_minute_makes_all_of_that_host_suspects() -> None:
    suspects = Suspects()
    suspects.note_death("dags", ["a", "b"], 0.0)
    assert suspects.note_death("dags", ["b", "c"], WITHIN_S)
    assert [suspects.is_suspect(job_id, WITHIN_S) for job_id in "abc"] == [False, True, True]


def test_deaths_far_apart_or_of_other_bundles_have_nothing_to_do_with_each_other() -> None:
    suspects = Suspects()
    suspects.note_death("dags", ["a"], 0.0)
    assert not suspects.note_death("others", ["a"], 1.0)
    assert not suspects.note_death("dags", ["a"], WITHIN_S + 1)


def test_a_suspicion_ends_by_time_or_by_a_life_alone() -> None:
    suspects = Suspects()
    suspects.note_death("dags", ["a", "b"], 0.0)
    suspects.note_death("dags", ["a", "b"], 1.0)
    suspects.clear(["a"])
    assert [suspects.is_suspect(job_id, 2.0) for job_id in "ab"] == [False, True]
    assert not suspects.is_suspect("b", 1.0 + REMEMBER_S)
