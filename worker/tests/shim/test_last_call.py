"""A task's state is sent last, because central accepts no other call of its job after it."""

from __future__ import annotations

import httpx
import pytest
from airflow_remote_worker.shim.last_call import LONGEST_S, StateLast
from airflow_remote_worker.shim.transport import BASE_URL

STATE = "task-instances/x/state"


class Inner(httpx.BaseTransport):
    """Answers with *statuses* in turn, then with 204; keeps the calls."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.calls: list[tuple[str, bytes]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append((request.url.path.rsplit("/", 1)[-1], request.read()))
        return httpx.Response(self.statuses.pop(0) if self.statuses else 204, text="why not")


class Task:
    """A client whose calls go through a :class:`StateLast`."""

    def __init__(self, *statuses: int) -> None:
        self.inner = Inner(*statuses)
        self.log: list[str] = []
        self.now = 0.0
        self.last = StateLast(self.inner, self.log.append, clock=lambda: self.now)
        self.client = httpx.Client(base_url=BASE_URL, transport=self.last)

    @property
    def made(self) -> list[str]:
        return [name for name, _ in self.inner.calls]


def test_calls_after_the_state_reach_central_before_it() -> None:
    task = Task()
    assert task.client.patch(STATE, content=b"success").status_code == 204
    task.client.get("variables/plant")
    task.client.post("xcoms/d/r/t/link", content=b"{}")
    assert task.made == ["plant", "link"]
    task.last.send()
    assert task.inner.calls[-1] == ("state", b"success")


def test_the_acknowledgement_of_a_stop_is_answered_here() -> None:
    """Central learns from the job's report that the process has ended."""
    task = Task()
    assert task.client.patch(STATE, json={"state": "server_terminated", "hostname": "h", "pid": 1}).status_code == 204
    task.last.send()
    assert task.client.patch(STATE, json={"state": "server_terminated"}).status_code == 204
    assert task.made == []


def test_the_state_is_sent_once() -> None:
    task = Task()
    task.client.patch(STATE, content=b"success")
    task.last.send()
    task.last.send()
    assert task.made == ["state"]


def test_a_slow_process_delays_its_state_up_to_a_limit() -> None:
    task = Task()
    task.client.patch(STATE, content=b"success")
    task.now = LONGEST_S - 1
    task.last.send_if_due()
    assert task.made == []
    task.now = LONGEST_S
    task.last.send_if_due()
    assert task.made == ["state"]


def test_a_state_sent_after_the_process_has_ended_is_passed_on_at_once() -> None:
    task = Task()
    task.last.send()
    task.client.patch(STATE, content=b"failed")
    assert task.inner.calls == [("state", b"failed")]


def test_the_first_state_counts() -> None:
    task = Task()
    task.client.patch(STATE, content=b"deferred")
    assert task.client.patch(STATE, content=b"success").status_code == 409
    task.last.send()
    assert task.inner.calls == [("state", b"deferred")]


@pytest.mark.parametrize("path", ["task-instances/x/run", "task-instances/x/rtif", "xcoms/d/r/task-instances/x/state"])
def test_other_calls_never_wait(path: str) -> None:
    task = Task()
    task.client.patch(path, content=b"{}")
    assert len(task.inner.calls) == 1


def test_a_state_is_sent_again_after_a_server_error() -> None:
    task = Task(502)
    task.client.patch(STATE, content=b"success")
    task.last.send()
    assert (task.made, task.log) == (["state", "state"], [])


@pytest.mark.parametrize("statuses", [(409,), (502, 502)])
def test_a_refused_state_is_explained_in_the_tasks_log(statuses: tuple[int, ...]) -> None:
    task = Task(*statuses)
    task.client.patch(STATE, content=b"success")
    task.last.send()
    assert len(task.inner.calls) == len(statuses)
    (line,) = task.log
    assert str(statuses[-1]) in line and "why not" in line
