from __future__ import annotations

from airflow_remote_worker.clock import Backoff, SystemClock

from .conftest import HandClock


def test_waits_double_up_to_the_ceiling(clock: HandClock) -> None:
    backoff = Backoff(clock, floor_s=1, ceiling_s=5)
    assert [backoff.next_s() for _ in range(5)] == [0.75, 1.5, 3.0, 3.75, 3.75]


def test_a_success_resets_the_waits(clock: HandClock) -> None:
    backoff = Backoff(clock, floor_s=1, ceiling_s=5)
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.75


def test_a_long_outage_does_not_overflow(clock: HandClock) -> None:
    backoff = Backoff(clock, floor_s=1, ceiling_s=5)
    for _ in range(5000):
        backoff.next_s()


def test_a_wait_is_never_shorter_than_the_server_asked_for(clock: HandClock) -> None:
    assert Backoff(clock, floor_s=1, ceiling_s=5).next_s(20) >= 20


def test_the_system_clock_never_runs_backwards() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()


def test_callers_with_the_same_retry_after_are_spread_over_a_second() -> None:
    waits = []
    for chance in (0.0, 0.5, 0.999):
        clock = HandClock()
        clock.chance = lambda chance=chance: chance  # type: ignore[method-assign,misc]
        waits.append(Backoff(clock, floor_s=0.1, ceiling_s=1).next_s(2))
    assert waits[0] == 2 and waits[0] < waits[1] < waits[2] < 3
