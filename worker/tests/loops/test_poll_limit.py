from __future__ import annotations

import pytest
from airflow_remote_worker.loops.poll_limit import FIRST_TRY_AFTER_S, LAST_TRY_AFTER_S, SHORTEST_S, PollLimit

WANTED_S = 50.0


class Way:
    """A device between worker and central that polls go through, none of which has news."""

    def __init__(self, cuts_after_s: float | None) -> None:
        self.cuts_after_s = cuts_after_s
        self.patience = PollLimit()
        self.now_s = 0.0
        self.asked: list[float] = []
        self.cuts = 0

    def poll(self) -> None:
        asked_s = self.patience.wait_s(wanted_s=WANTED_S, now_s=self.now_s)
        self.asked.append(asked_s)
        if self.cuts_after_s is not None and asked_s >= self.cuts_after_s:
            self.now_s += self.cuts_after_s
            self.cuts += 1
            self.patience.note_cut(asked_s=asked_s, lasted_s=self.cuts_after_s, now_s=self.now_s)
        else:
            self.now_s += asked_s
            self.patience.note_answer(asked_s=asked_s, lasted_s=asked_s)

    def polls_for(self, hours: float) -> None:
        until_s = self.now_s + 3600 * hours
        while self.now_s < until_s:
            self.poll()


def test_without_a_limit_polls_wait_as_long_as_central_asks_for() -> None:
    way = Way(None)
    way.polls_for(1)
    assert set(way.asked) == {WANTED_S}


def test_two_alike_cuts_set_a_limit() -> None:
    way = Way(20)
    for _ in range(4):
        way.poll()
    assert way.asked == [50, 50, 16, 16]


@pytest.mark.parametrize("lasted_s", [[20.0, 40.0], [9.0, 30.0, 12.0], [0.2, 0.2], [50_000.0, 50_000.0]])
def test_outages_at_different_moments_set_no_limit(lasted_s: list[float]) -> None:
    patience = PollLimit()
    for lasted in lasted_s:
        patience.note_cut(asked_s=WANTED_S, lasted_s=lasted, now_s=0)
    assert patience.wait_s(wanted_s=WANTED_S, now_s=0) == WANTED_S


def test_an_answered_poll_between_two_cuts_separates_them() -> None:
    patience = PollLimit()
    patience.note_cut(asked_s=WANTED_S, lasted_s=20, now_s=20)
    patience.note_answer(asked_s=WANTED_S, lasted_s=WANTED_S)
    patience.note_cut(asked_s=WANTED_S, lasted_s=20, now_s=90)
    assert patience.wait_s(wanted_s=WANTED_S, now_s=90) == WANTED_S


def test_early_answers_show_nothing_about_idle_limits() -> None:
    patience = PollLimit()
    patience.note_cut(asked_s=WANTED_S, lasted_s=20, now_s=20)
    patience.note_answer(asked_s=WANTED_S, lasted_s=3)
    patience.note_cut(asked_s=WANTED_S, lasted_s=20, now_s=43)
    assert patience.wait_s(wanted_s=WANTED_S, now_s=43) == 16


def test_silently_lost_polls_are_halved_until_one_is_answered() -> None:
    patience = PollLimit()
    asked_s, now_s, asked = WANTED_S, 0.0, []
    while asked_s > 20:  # above that the device drops them, and the worker's own timeout ends them 15 s later
        asked.append(asked_s)
        now_s += asked_s + 15
        patience.note_cut(asked_s=asked_s, lasted_s=asked_s + 15, now_s=now_s)
        asked_s = patience.wait_s(wanted_s=WANTED_S, now_s=now_s)
    assert asked == [50, 50, 25, 25]


def test_a_central_that_hangs_now_and_then_sets_no_limit() -> None:
    """After a failure the worker sends short polls until one is answered, then as long ones as central asks for."""
    patience = PollLimit()
    for _ in range(3):
        patience.note_cut(asked_s=WANTED_S, lasted_s=WANTED_S + 15, now_s=0)
        for _ in range(20):
            patience.note_cut(asked_s=1.0, lasted_s=16.0, now_s=0)
        patience.note_answer(asked_s=1.0, lasted_s=1.0)
        patience.note_answer(asked_s=WANTED_S, lasted_s=WANTED_S)
    assert patience.wait_s(wanted_s=WANTED_S, now_s=0) == WANTED_S


def test_a_limit_is_tested_again_at_growing_intervals() -> None:
    way = Way(20)
    way.polls_for(0.5)
    assert way.cuts == 2
    way.polls_for(24 * 7)
    tries = way.cuts - 2
    assert 7 <= tries <= 7 + 6, "an hour, two, four, …, then once a day"
    assert max(way.asked[3:]) == 24


def test_a_removed_limit_is_forgotten_within_minutes_of_the_next_try() -> None:
    way = Way(20)
    way.polls_for(0.5)
    way.cuts_after_s = None
    way.polls_for((FIRST_TRY_AFTER_S + 300) / 3600)
    assert way.asked[-1] == WANTED_S


def test_a_raised_limit_is_found() -> None:
    way = Way(20)
    way.polls_for(0.5)
    way.cuts_after_s = 40
    way.polls_for(30)
    assert 30 < way.asked[-1] < 40
    assert way.cuts < 10


def test_polls_never_become_too_short_for_central() -> None:
    way = Way(SHORTEST_S)
    way.polls_for(1)
    assert min(way.asked) == SHORTEST_S
    assert LAST_TRY_AFTER_S > FIRST_TRY_AFTER_S
