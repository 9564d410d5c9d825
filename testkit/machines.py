"""How long Hypothesis's state machines search, and how a find is made to happen again.

In CI they take the same steps each time, for a few seconds each. `SEARCH=50 make unit` takes fifty times as many, new ones each
time; what fails is printed as a program, and with `SEED=…` from its report the same search is made again.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

M = TypeVar("M", bound=RuleBasedStateMachine)


def search(machine: type[M], *, examples: int, steps: int) -> None:
    """Let *machine* take *steps* steps, *examples* times, each time others; fail with the shortest program that breaks a rule."""
    times = int(os.environ.get("SEARCH", "1"))
    given_seed = os.environ.get("SEED")
    if given_seed is not None:
        machine = seed(int(given_seed))(machine)  # type: ignore[assignment]
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples * times,
            stateful_step_count=steps,
            derandomize=times == 1 and given_seed is None,
            database=None,  # a find that only this machine remembers is no test
            deadline=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )


@contextmanager
def counted_ids() -> Iterator[None]:
    """Ids in a row instead of random ones: what the ledger orders by id must be the same when a program is run again."""
    numbers = count(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(numbers)))
        yield
