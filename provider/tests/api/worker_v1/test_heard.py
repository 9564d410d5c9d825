"""Which of people's wishes a worker acts by, as its polls tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from testkit.central import ServedCentral  # isort: skip
from testkit.ledger import counted, installed, make_engine  # isort: skip

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.insist import succeeded
from airflow_remote_protocol.messages import IntentMode, Poll, PollReply
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import workers
from airflow_remote_provider.models import Worker


@pytest.fixture
def central(new_database: Callable[[str], str], tmp_path: Path) -> Iterator[ServedCentral]:
    engine = make_engine(new_database("sqlite"))
    with installed(engine, tmp_path), ServedCentral() as served:
        yield served
    engine.dispose()


def _poll(caller: Caller, revision: int) -> PollReply:
    return succeeded(caller.call("POST", "poll", Poll(1, revision, 0.0)), PollReply)


def _heard() -> int | None:
    with compat.transaction() as session:
        return session.scalar(select(Worker.received_revision))


def test_a_poll_under_the_newest_wish_tells_that_it_was_heard_once(central: ServedCentral) -> None:
    caller = Caller.at_work(central)
    first = _heard()
    assert first == 1, "with its session"
    with compat.transaction() as session:
        workers.set_intent(session, caller.name, IntentMode.PAUSE, by="ann")
    told = None
    while told is None:  # without notifications it takes a tick
        told = _poll(caller, 1).intent
    assert _heard() == 1, "it was told; whether it acts by it, its next poll says"
    _poll(caller, told.revision)
    assert _heard() == told.revision
    with counted(compat.engine()) as statements:
        _poll(caller, told.revision)
    assert [statement for statement in statements if "heard_revision" in statement and statement.startswith("UPDATE")] == []
