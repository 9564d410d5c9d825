"""The intent that a worker has received, as recorded from its polls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from testkit.central import ServedCentral  # isort: skip
from testkit.ledger import record_statements, use_ledger, make_engine  # isort: skip

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.expect import expect_message
from airflow_remote_protocol.messages import IntentMode, Poll, PollReply
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import workers
from airflow_remote_provider.models import Worker


@pytest.fixture
def central(new_database: Callable[[str], str], tmp_path: Path) -> Iterator[ServedCentral]:
    engine = make_engine(new_database("sqlite"))
    with use_ledger(engine, tmp_path), ServedCentral() as served:
        yield served
    engine.dispose()


def _poll(caller: Caller, revision: int) -> PollReply:
    return expect_message(caller.call("POST", "poll", Poll(1, revision, 0.0)), PollReply)


def _received() -> int | None:
    with compat.transaction() as session:
        return session.scalar(select(Worker.received_revision))


def test_a_poll_with_the_newest_intent_records_its_receipt_once(central: ServedCentral) -> None:
    caller = Caller.connect(central)
    first = _received()
    assert first == 1, "with its session"
    with compat.transaction() as session:
        workers.set_intent(session, caller.name, IntentMode.PAUSE, by="ann")
    sent = None
    while sent is None:  # without notifications it takes a tick
        sent = _poll(caller, 1).intent
    assert _received() == 1, "sent, but only the next poll confirms the receipt"
    _poll(caller, sent.revision)
    assert _received() == sent.revision
    with record_statements(compat.engine()) as statements:
        _poll(caller, sent.revision)
    assert [statement for statement in statements if "heard_revision" in statement and statement.startswith("UPDATE")] == []
