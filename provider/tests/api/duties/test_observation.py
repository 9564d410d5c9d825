"""A silence counts only while central could receive calls."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow_remote_provider.api.duties.observation import ObservationWindow

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


class Watch:
    """An observation window of a minute with two clocks that the test sets."""

    def __init__(self) -> None:
        self.mine = 1000.0
        self.database = NOON
        self.window = ObservationWindow(60, monotonic=lambda: self.mine)

    def look(self, after_s: float = 0.0, *, database_s: float | None = None) -> bool:
        self.mine += after_s
        self.database += timedelta(seconds=after_s if database_s is None else database_s)
        return self.window.look(self.database)

    def watch(self, seconds: int) -> None:
        for _ in range(seconds // 10):
            assert self.look(10)


def test_the_window_starts_with_the_first_look() -> None:
    watch = Watch()
    assert not watch.window.has_lasted
    assert not watch.look()
    watch.watch(50)
    assert not watch.window.has_lasted
    watch.watch(10)
    assert watch.window.has_lasted


@pytest.mark.parametrize("days", [-1, 1])
@pytest.mark.parametrize("minutes", [0, 10])
def test_a_changed_database_clock_restarts_the_window(days: int, minutes: int) -> None:
    watch = Watch()
    watch.look()
    watch.watch(120)
    jump_s = days * (minutes * 60 or 86_400)
    assert not watch.look(10, database_s=10 + jump_s)
    assert not watch.window.has_lasted
    watch.watch(60)
    assert watch.window.has_lasted


def test_a_drifting_clock_does_not_restart_the_window() -> None:
    watch = Watch()
    watch.look()
    for _ in range(12):
        assert watch.look(10, database_s=10.5)
    assert watch.window.has_lasted


def test_a_suspended_or_stalled_machine_restarts_the_window() -> None:
    asleep, stalled = Watch(), Watch()
    for watch in (asleep, stalled):
        watch.look()
        watch.watch(120)
    assert not asleep.look(1, database_s=3600)  # the monotonic clock stands still meanwhile
    assert not stalled.look(40)
    assert not asleep.window.has_lasted and not stalled.window.has_lasted


def test_losing_the_duty_restarts_the_window() -> None:
    watch = Watch()
    watch.look()
    watch.watch(120)
    watch.window.end()
    assert not watch.window.has_lasted
    assert not watch.look(10)
