"""State machine test of appending logs: if chunks are lost, repeated, reordered or cut, the log still equals the worker's file.

The file store and the ledger's `log_place` and `begin_log` are the real ones. Two simulated API processes call them in the same
way as the `log` route, and may interleave between its steps. The simulated worker follows the rule of the shipping loop: start
anywhere, and continue at the size that central returns.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from testkit.ledger import enlist, job_row, running  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import log_places
from airflow_remote_provider.stores import WrongOffset
from airflow_remote_provider.stores.task_logs import FileLogStore

from testkit.ledger_machine import LedgerMachine
from testkit.machines import search

BEFORE = b"an earlier lease's lines\n"
STEPS = 40


@dataclass
class Request:
    """A chunk in transit; *base* is set once an API process has asked the ledger for the log's place."""

    offset: int
    body: bytes
    path: str = ""
    base: int | None = None


class AppendMachine(LedgerMachine):
    def __init__(self) -> None:
        super().__init__()
        self.lease = running(enlist())
        self.path = job_row(self.lease.job_id).log_path
        self.store = FileLogStore()
        compat.log_file(self.path).write_bytes(BEFORE)
        self.written = b""
        self.position = 0
        self.requests: list[Request] = []
        self.answers: list[int] = []

    # The task and the worker

    @rule(text=st.binary(min_size=1, max_size=20))
    def the_task_writes(self, text: bytes) -> None:
        self.written += text

    @precondition(lambda self: self.position < len(self.written))
    @rule(size=st.integers(1, 30))
    def a_chunk_is_sent(self, size: int) -> None:
        self.requests.append(Request(self.position, self.written[self.position : self.position + size]))

    @rule()
    def the_daemon_starts_again(self) -> None:
        """It does not know how much central holds; earlier requests may still be in transit."""
        self.position = 0
        self.answers.clear()

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        """The answer may be late: central had that size once."""
        self.position = self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))

    # The network

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def a_request_is_lost(self, data: st.DataObject) -> None:
        self.requests.remove(self._draw(data))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def a_request_is_repeated(self, data: st.DataObject) -> None:
        request = self._draw(data)
        self.requests.append(Request(request.offset, request.body))

    # Two API processes: either can act between the other's call of the ledger and its append

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def a_process_asks_for_the_place(self, data: st.DataObject) -> None:
        self._place(self._draw(data))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), is_answered=st.booleans())
    def a_process_appends(self, data: st.DataObject, is_answered: bool) -> None:
        request = self._draw(data)
        self.requests.remove(request)
        size = self._append(request)
        if is_answered:
            self.answers.append(size)

    # Invariants

    @invariant()
    def central_holds_a_beginning_of_what_was_written(self) -> None:
        held = self._held()
        assert held == self.written[: len(held)]

    @invariant()
    def what_was_there_before_stays(self) -> None:
        assert compat.log_file(self.path).read_bytes().startswith(BEFORE)

    def teardown(self) -> None:
        """With a working network, the rest arrives, and late repeats change nothing."""
        try:
            self.position = 0
            for _ in range(len(self.written) + 2):
                if self.position == len(self.written):
                    break
                self.position = self._append(Request(self.position, self.written[self.position : self.position + 30]))
            for request in self.requests:
                self._append(request)
            assert self._held() == self.written
        finally:
            super().teardown()

    def _draw(self, data: st.DataObject) -> Request:
        return self.requests[data.draw(st.integers(0, len(self.requests) - 1))]

    def _place(self, request: Request) -> None:
        if request.base is not None:
            return
        with compat.transaction() as session:
            place = log_places.log_place(session, self.lease)
            request.path = place.path
            request.base = place.base
            if place.base is None:
                request.base = log_places.begin_log(session, self.lease, self.store.size(place.path))

    def _append(self, request: Request) -> int:
        """Return central's size, as both kinds of answers of the route contain it."""
        self._place(request)
        assert request.base is not None
        try:
            return self.store.append(request.path, base=request.base, offset=request.offset, body=request.body)
        except WrongOffset as step:
            return step.size

    def _held(self) -> bytes:
        return compat.log_file(self.path).read_bytes()[len(BEFORE) :]


def test_a_log_arrives_byte_for_byte_whatever_happens_on_the_way() -> None:
    search(AppendMachine, examples=60, steps=STEPS)
