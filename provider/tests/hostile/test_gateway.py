"""The gateway: a job calls only as its own task instance, headers of the attacker are dropped, and no internal header of Airflow
is returned."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.ledger.views.accesses import list_accesses
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from testkit.attacker import PASSWORD, Attacker, allow, take_over
from testkit.central import ServedCentral
from testkit.ledger import job_row, make_engine, use_ledger

OF_A_TASK_INSTANCE = [
    ("PATCH", "task-instances/{ti}/run"),
    ("PATCH", "task-instances/{ti}/state"),
    ("PATCH", "task-instances/{ti}/skip-downstream"),
    ("PUT", "task-instances/{ti}/heartbeat"),
    ("PUT", "task-instances/{ti}/rtif"),
    ("GET", "task-instances/{ti}/previous-successful-dagrun"),
    ("GET", "task-reschedules/{ti}/start_date"),
    ("POST", "hitlDetails/{ti}"),
    ("GET", "store/ti/{ti}/key"),
    ("PUT", "store/ti/{ti}/key"),
    ("DELETE", "store/ti/{ti}"),
]
SMUGGLED = {
    "cookie": "session=admin; _token=eyJhbGciOi",
    "x-forwarded-user": "admin",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-host": "central",
    "x-forwarded-prefix": "/api/v2",
    "x-remote-user": "admin",
    "x-original-url": "/api/v2/variables",
    "forwarded": "for=127.0.0.1;host=central",
    "proxy-authorization": "Basic YWRtaW46YWRtaW4=",
    "refreshed-api-token": "eyJhbGciOi",
    "x-airflow-token": "eyJhbGciOi",
    "accept-encoding": "gzip",
}


@pytest.mark.parametrize(("method", "path"), OF_A_TASK_INSTANCE)
def test_no_job_can_call_for_another_task_instance(attacker: Attacker, victim: Attacker, method: str, path: str) -> None:
    theirs = job_row(victim.offer.job_id).ti_id
    for ti in (theirs, uuid.uuid4(), str(theirs).upper(), f"{{{theirs}}}", f"urn:uuid:{theirs}", str(theirs).replace("-", "")):
        answer = attacker.send_about_job(method, "execution/" + path.format(ti=ti), b'{"state":"failed"}')
        assert answer.problem == "invalid", (ti, answer)
    assert job_row(victim.offer.job_id).state == "running"


def test_a_call_without_a_grant_is_denied_and_recorded(attacker: Attacker) -> None:
    for path in (
        "connections/plant",
        "variables/plant",
        "variables/keys",
        "xcoms/other/run/task/key",
        "dag-runs/count?dag_id=other",
    ):
        answer = attacker.send_about_job("GET", f"execution/{path}")
        assert answer.status == 403
        assert PASSWORD.encode() not in answer.body
    with compat.transaction() as session:
        denied = {row.name for row in list_accesses(session).rows if row.job_id == attacker.offer.job_id}
    assert {"plant", "other"} <= denied


def test_a_granted_secret_is_returned_without_airflow_s_own_headers(attacker: Attacker) -> None:
    allow(attacker.worker.queue, GrantKind.CONNECTIONS, "plant")
    answer = attacker.send_about_job("GET", "execution/connections/plant")
    assert (answer.status, json.loads(answer.body)["password"]) == (200, PASSWORD)
    allowed = {"content-type", "content-length", "correlation-id", "date", "server", "airflow-remote-protocol"}
    assert set(answer.headers) <= allowed
    assert "eyJ" not in str(answer.headers), "something like a token"


@pytest.fixture(scope="module")
def showing(new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedCentral]:
    """A central whose Execution API returns the request's headers, and adds headers that must not be passed on."""

    def execution_api() -> FastAPI:
        app = FastAPI()

        @app.api_route("/{path:path}", methods=["GET", "PATCH", "POST", "PUT"])
        async def show(path: str, request: Request) -> Any:
            answer = JSONResponse({"headers": request.headers.items()})
            answer.headers.update(
                {"refreshed-api-token": "eyJleHAiOjF9", "www-authenticate": "Bearer", "location": "http://inside/"}
            )
            answer.set_cookie("session", "of central")
            return answer

        return app

    folder: Path = tmp_path_factory.mktemp("logs")
    engine = make_engine(new_database("sqlite"))
    with use_ledger(engine, folder), ServedCentral(execution_api) as served:
        yield served
    engine.dispose()


def test_only_listed_headers_are_passed_over_a_real_socket(showing: ServedCentral) -> None:
    attacker = take_over(showing)
    answer = attacker.send_about_job("GET", "execution/health", headers=attacker.headers() | SMUGGLED)
    received = dict(json.loads(answer.body)["headers"])
    assert set(received) == {"content-type", "host", "content-length", "authorization"}
    assert received["host"] == "central"
    assert attacker.worker.credential not in str(received)
    for name in ("set-cookie", "refreshed-api-token", "www-authenticate", "location"):
        assert name not in answer.headers
    assert received["authorization"].removeprefix("Bearer ") not in str(answer.headers)


@pytest.mark.parametrize(
    "query", ["a=%00", "map_index=%0a", "%00=1", "map_index=1&map_index=2", "map_index=9" * 400, "x=" + "%ff" * 99]
)
def test_no_query_causes_an_internal_error(attacker: Attacker, query: str) -> None:
    task = job_row(attacker.offer.job_id)
    for path in (
        "connections/plant",
        f"xcoms/{task.dag_id}/{task.run_id}/{task.task_id}/k",
        f"dag-runs/count?dag_id={task.dag_id}&",
    ):
        join = "" if path.endswith("&") else "?"
        assert attacker.send_about_job("GET", f"execution/{path}{join}{query}").status < 500
