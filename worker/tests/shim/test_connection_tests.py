"""Connection tests in a real runtime. The daemon is a stub, and the connection's other end a local port."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from airflow_remote_worker.local import frames, job_files

from .conftest import CONNECTION, Job, StubDaemon, ZygoteUnderTest, canned

pytestmark = pytest.mark.runtime

MakeJob = Callable[..., Job]


def connection_test() -> dict[str, Any]:
    workload = {"connection_test_id": str(uuid.uuid4()), "connection_id": "vault", "timeout_s": 20}
    return {"kind": "connection-test", "workload": workload}


def given(**changes: Any) -> Callable[[frames.Call], frames.Answer]:
    """Answer with this connection."""

    def answer(call: frames.Call) -> frames.Answer:
        if call.path.endswith("/connection"):
            body = json.dumps({**CONNECTION, **changes}).encode()
            return frames.Answer(id=call.id, status=200, headers={"content-type": "application/json"}, body=body)
        return canned(call)

    return answer


def reported(daemon: StubDaemon) -> dict[str, Any]:
    [call] = [call for call in daemon.calls if call.method == "PATCH"]
    return dict(json.loads(call.body))


def test_a_connection_that_can_not_be_tested_fails_with_the_reason(
    zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon
) -> None:
    daemon.answer = given(conn_type="no-such-type")
    job = make_job("", **connection_test())
    zygote.spawn(job)
    assert job.result() == job_files.Result(exit_code=0, final_state="failed")
    assert reported(daemon)["state"] == "failed"
    assert "no-such-type" in reported(daemon)["result_message"]
    assert (daemon.calls[0].method, daemon.calls[0].path) == ("POST", frames.ACCEPT)


def test_a_connection_is_tested_from_this_machine(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    with socket.socket() as port:  # bound, but not listening: the refusal proves that this machine connected
        port.bind(("127.0.0.1", 0))
        daemon.answer = given(conn_type="docker", host="tcp://127.0.0.1", port=port.getsockname()[1])
        job = make_job("", **connection_test())
        zygote.spawn(job)
        assert job.result().final_state == "failed"
    result = reported(daemon)
    assert result["state"] == "failed"
    assert result["result_message"]


def test_no_file_of_the_job_shows_the_password(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    daemon.answer = given(conn_type="no-such-type", extra='{"token": "battery-staple-42"}')
    job = make_job("", **connection_test())
    zygote.spawn(job)
    job.result()
    content = b"".join(path.read_bytes() for path in job.directory.iterdir())
    assert b"correct-horse" not in content
    assert b"battery-staple" not in content
