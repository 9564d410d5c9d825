"""The whole daemon while another server answers instead of central: its answers stop, kill and change nothing."""

from __future__ import annotations

import json

import msgspec
import pytest
from airflow_remote_protocol.codec import encode
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.messages import Intent, IntentMode, PollReply, Stop, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import PROBLEM_HEADER
from airflow_remote_worker import status as status_module
from airflow_remote_worker.config import PollConfig
from airflow_remote_worker.testing.fake_central import FakeCentral

from .conftest import RunningWorker, eventually

pytestmark = pytest.mark.timeout(90)

HTML = {"content-type": "text/html; charset=utf-8"}
JSON = {"content-type": "application/json"}


def pages(job_id: str) -> list[tuple[int, bytes, dict[str, str], str]]:
    """Return answers of other servers, each with a part of the text that users get."""
    leave = Intent(mode=IntentMode.LEAVE, revision=99)
    obeyed = encode(PollReply(poll_s=600, stops=[Stop(job_id, 1, StopReason.ENDED)], intent=leave, pause_s=600))

    def like_central(code: ProblemCode) -> tuple[int, bytes, dict[str, str]]:
        body = make_problem(code, "sent by another server")
        return body.status, encode(body), {"content-type": "application/problem+json", PROBLEM_HEADER: code.value}

    return [
        (200, b"<html><title>Guest &amp; Wi-Fi</title>", HTML, "titled 'Guest & Wi-Fi'"),
        (200, b"", HTML, "a proxy's login page"),
        (200, obeyed, JSON, "the provider is installed"),
        (204, b"", {"server": "x"}, "the provider is installed"),
        (302, b"", {"location": "https://login.example.com/?next=1"}, "a redirect to https://login.example.com/?next=1"),
        (401, b"{}", JSON, "the provider is installed"),
        (403, b"<html>blocked", HTML, "a proxy or firewall forbids this address"),
        (403, b"{}", JSON, "a proxy or firewall forbids this address"),
        (404, b"", HTML, "check the address and its sub-path"),
        (405, b"", HTML, "blocks POST requests"),
        (407, b"", HTML, "the proxy requires a login"),
        (502, b"", HTML, "a load balancer can't reach central"),
        (504, b"", HTML, "ended a long request"),
        (*like_central(ProblemCode.REVOKED), ""),
        (*like_central(ProblemCode.SESSION_TAKEN), ""),
        (*like_central(ProblemCode.SUPERSEDED), ""),
        (*like_central(ProblemCode.OUTDATED), ""),
        (*like_central(ProblemCode.CLONED), ""),
    ]


def test_no_other_server_s_page_is_taken_for_central_s_answer(
    central: FakeCentral, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_module, "STATUS_EVERY_S", 0.02)
    worker.config = msgspec.structs.replace(worker.config, poll=PollConfig(max_wait_s=20, backoff_ceiling_s=0.05))
    worker.start()
    job_id = worker.enqueue("run\nsleep 60\nexit 0")
    central.wait_for_state(job_id, JobState.RUNNING)
    assert worker.lifecycle is not None
    for status, body, headers, expected in pages(job_id):
        before = len(central.requests)
        central.answer_like_a_proxy(status, body, headers)
        central.go_down()  # cuts the open poll
        central.come_back()
        eventually(lambda before=before: len(central.requests) >= before + 2)
        trouble = eventually(lambda status=status, expected=expected: trouble_with(worker, f"answered {status} ", expected))
        assert "not as central's remote API does" in trouble
        assert not worker.lifecycle.detaching.is_set()
        assert not worker.lifecycle.draining.is_set()
        assert [job["phase"] for job in status_of(worker)["jobs"]] == ["running"]
    central.answer_as_central()
    eventually(lambda: not status_of(worker)["trouble"])
    assert central.job_state(job_id) == "running"
    assert status_of(worker)["intent"]["mode"] == "serve"


def trouble_with(worker: RunningWorker, *parts: str) -> str:
    trouble = str(status_of(worker)["trouble"])
    return trouble if all(part in trouble for part in parts) else ""


def status_of(worker: RunningWorker) -> dict:  # type: ignore[type-arg]
    return dict(json.loads(worker.state.status_path.read_bytes()))
