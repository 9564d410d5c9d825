"""Tests e2e/chaos/schedule.py: a seed determines a schedule, whose faults are bounded in time."""

from __future__ import annotations

import pytest

from e2e.chaos.schedule import FAULTS_S, Schedule, expected


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert Schedule.of(7) == Schedule.of(7)
    assert Schedule.of(7).acts != Schedule.of(8).acts


@pytest.mark.parametrize("seed", range(50))
def test_every_fault_ends_within_the_time_of_faults(seed: int) -> None:
    acts = Schedule.of(seed).acts
    assert acts == tuple(sorted(acts, key=lambda act: act.at_s))
    assert all(act.at_s >= 0 and act.at_s + act.lasts_s <= FAULTS_S for act in acts)


@pytest.mark.parametrize("seed", range(50))
def test_two_faults_of_one_kind_never_overlap_at_one_place(seed: int) -> None:
    ends: dict[tuple[str, bool], float] = {}
    for act in Schedule.of(seed).acts:
        lane = (act.target, act.what in ("kill -9", "terminate"))
        assert act.what in ("fail", "clear") or act.at_s >= ends.get(lane, 0)
        ends[lane] = act.at_s + act.lasts_s


def test_many_seeds_include_every_kind_of_fault() -> None:
    kinds = {act.what for seed in range(100) for act in Schedule.of(seed).acts}
    assert kinds == {
        *("refuse", "reset", "black_hole", "half_open", "stall", "slow", "answer", "drop_replies", "cut_requests", "cut_replies"),
        *("cut", "kill -9", "terminate", "fail", "clear", "kill shim", "kill task"),
    }


def test_the_expected_end_of_each_task_follows_from_the_plan() -> None:
    [plan, _] = Schedule.of(1).plans
    ends = expected(plan)
    assert ends["total", -1].xcom == sum(ends["work", number].xcom for number in range(len(plan["work"])))
    assert all(ends["work", number].tries == 1 + work["fails"] for number, work in enumerate(plan["work"]))
