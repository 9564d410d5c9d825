"""Runs Hypothesis's state machines: how long they search, and how to repeat a search that failed.

In CI they take the same steps each time, for a few seconds each. `SEARCH=50 make unit` takes fifty times as many steps, different
ones each time. A failure is printed as a program; with `SEED=…` from its report the same search is repeated.
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
    """Run *machine* for *steps* steps, *examples* times with different steps; fail with the shortest failing program."""
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
            database=None,  # a failure that only one computer remembers is not reproducible
            deadline=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )


@contextmanager
def use_sequential_ids() -> Iterator[None]:
    """Make uuid4 sequential: what the ledger orders by id must be the same when a program is run again."""
    numbers = count(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(numbers)))
        yield
