"""Which triggers may have killed their host."""

from __future__ import annotations

from airflow_remote_worker.triggers.suspects import REMEMBER_S, WITHIN_S, Suspects


def test_one_death_makes_no_trigger_suspect() -> None:
    suspects = Suspects()
    assert not suspects.note_death("dags", ["a", "b"], 0.0)
    assert not suspects.is_suspect("a", 1.0)


def test_a_second_death_within_a_minute_makes_all_triggers_of_the_host_suspect() -> None:
    suspects = Suspects()
    suspects.note_death("dags", ["a", "b"], 0.0)
    assert suspects.note_death("dags", ["b", "c"], WITHIN_S)
    assert [suspects.is_suspect(job_id, WITHIN_S) for job_id in "abc"] == [False, True, True]


def test_deaths_far_apart_or_of_other_bundles_are_unrelated() -> None:
    suspects = Suspects()
    suspects.note_death("dags", ["a"], 0.0)
    assert not suspects.note_death("others", ["a"], 1.0)
    assert not suspects.note_death("dags", ["a"], WITHIN_S + 1)


def test_a_suspicion_ends_by_time_or_by_running_alone() -> None:
    suspects = Suspects()
    suspects.note_death("dags", ["a", "b"], 0.0)
    suspects.note_death("dags", ["a", "b"], 1.0)
    suspects.clear(["a"])
    assert [suspects.is_suspect(job_id, 2.0) for job_id in "ab"] == [False, True]
    assert not suspects.is_suspect("b", 1.0 + REMEMBER_S)
