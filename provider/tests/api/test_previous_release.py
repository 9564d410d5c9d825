"""This central passes the conformance suite of the previous release, so that its workers can use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from airflow_remote_protocol.messages import IntentMode, JobKind

from testkit import previous
from testkit.central import ServedCentral
from testkit.ledger import make_engine, use_ledger

CHANGED = {
    "check_an_end_said_again_to_a_task_that_has_moved_on_changes_nothing": "it defers without a trigger, as no Task SDK does",
}
"""Checks that this central fails on purpose, and why that affects no worker. Empty this when the previous release changes."""


class PreviousHarness(ServedCentral):
    """Converts from and to the types of the previous release, whose package has another name here."""

    usage_type: Any = None

    def enqueue(self, queue: str, *, kind: Any = JobKind.TASK, **more: Any) -> str:
        return super().enqueue(queue, kind=JobKind(kind.value), **more)

    def set_intent(self, worker_name: str, mode: Any, **more: Any) -> None:
        super().set_intent(worker_name, IntentMode(mode.value), **more)

    def own_log(self, worker_name: str) -> bytes:
        return super().worker_log(worker_name)

    def usage(self, worker_name: str) -> Any:
        usage = super().usage(worker_name)
        return None if usage is None else msgspec.json.decode(msgspec.json.encode(usage), type=self.usage_type)


pytestmark = [pytest.mark.postgres, previous.NEEDED]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return previous.conformance(tmp_path_factory.mktemp("previous"))


@pytest.fixture(scope="module")
def central(
    suite: Any, new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PreviousHarness]:
    engine = make_engine(new_database("postgres"))
    with use_ledger(engine, tmp_path_factory.mktemp("logs")), PreviousHarness() as served:
        served.usage_type = suite.usages.Usage
        yield served
    engine.dispose()


@pytest.mark.timeout(900)  # a hundred checks, each of which would have 300 s as a test of its own
def test_central_conforms_to_the_previous_release(suite: Any, central: PreviousHarness, subtests: pytest.Subtests) -> None:
    assert {check.__name__ for check in suite.ALL} > set(CHANGED)
    for check in suite.ALL:
        if check.__name__ in CHANGED:
            continue
        with subtests.test(suite.sentence(check)):
            check(central)
