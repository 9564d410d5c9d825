"""The waits of a loop after each kind of error."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest
from airflow_remote_worker.errors import Outdated, Rewind, Unreachable
from airflow_remote_worker.link.attempts import Attempts

from ..conftest import HandClock


class _Link:
    def __init__(self) -> None:
        self.waits: list[float] = []

    async def wait_for_contact(self, at_most_s: float) -> None:
        self.waits.append(at_most_s)


def _waits(*errors: Exception, ceiling_s: float = 30.0) -> list[float]:
    link = _Link()

    async def run() -> None:
        attempts = Attempts(link, HandClock(), floor_s=1.0, ceiling_s=ceiling_s)
        for error in errors:
            await attempts.wait_after(error)

    anyio.run(run)
    return link.waits


def test_waits_double_up_to_the_ceiling() -> None:
    waits = _waits(*[Unreachable("away")] * 6, ceiling_s=8.0)
    assert [later / earlier for earlier, later in pairwise(waits)] == [2, 2, 2, 1, 1]


@pytest.mark.parametrize("error", [Outdated("old"), Rewind("back", size=7), Unreachable("away"), OSError("disk")])
def test_every_retried_error_waits(error: Exception) -> None:
    assert len(_waits(error)) == 1


def test_central_can_ask_for_a_longer_wait() -> None:
    assert _waits(Unreachable("busy", retry_after_s=20.0))[0] >= 20.0


def test_after_an_answer_the_waits_are_short_again() -> None:
    attempts = Attempts(_Link(), HandClock(), floor_s=1.0)
    first = attempts.next_s()
    assert attempts.next_s() > first
    attempts.reset()
    assert attempts.next_s() == first
