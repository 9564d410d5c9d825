"""The REST API as a whole: errors, ETags, the OpenAPI document, and arbitrary input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from testkit.ledger import enlist, offered  # isort: skip

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.ui_v1.app import document
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError

if TYPE_CHECKING:
    from .conftest import Users


def test_unchanged_data_is_not_sent_again(users: Users) -> None:
    enlist("edge")
    first = users.vic.get("/queues")
    assert first.headers["cache-control"] == "private, no-cache"
    again = users.vic.get("/queues", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    weak = users.vic.get("/queues", headers={"if-none-match": f'"x", W/{first.headers["etag"]}'})
    assert weak.status_code == 304
    users.ann.ok("PUT", "/queues/q/rules", 204, json={"lost_after_s": 60})
    changed = users.vic.get("/queues", headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200 and changed.headers["etag"] != first.headers["etag"]


def test_errors_have_no_etag(users: Users) -> None:
    assert "etag" not in users.vic.get("/workers/nobody").headers


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("PATCH", "/workers", 405)])
def test_an_unknown_route_is_answered_with_a_problem(users: Users, method: str, path: str, status: int) -> None:
    answer = users.vic(method, path)
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"title", "status", "detail", "code"}
    assert status != 404 or "no route /nothing" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status"), [(OperationalError("SELECT secret", {}, Exception("gone")), 503), (RuntimeError("a secret"), 500)]
)
def test_internal_errors_reveal_nothing(users: Users, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int) -> None:
    async def call(self: LedgerPool, *args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(LedgerPool, "call", call)
    answer = users.vic.get("/workers")
    assert answer.status_code == status and "secret" not in answer.text
    assert ("retry-after" in answer.headers) is (status == 503)


def test_the_document_describes_every_error_and_resolves(app: FastAPI) -> None:
    described = document(app)
    schemas = described["components"]["schemas"]
    referred = set(json.dumps(described).split('"#/components/schemas/')[1:])
    assert {one.split('"')[0] for one in referred} <= set(schemas)
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary") and operation.get("tags", path == "/me"), (method, path)
            assert {"401", "403", "422"} <= set(operation["responses"]), (method, path)
            assert "HTTPValidationError" not in json.dumps(operation["responses"]), (method, path)


@pytest.mark.timeout(280)
@pytest.mark.filterwarnings("ignore:Setting per-request cookies")
def test_any_input_gets_an_answer_of_the_document(app: FastAPI, users: Users) -> None:
    """Schemathesis makes valid and invalid requests from the document; none may cause a server error."""
    offered(enlist("edge"))
    schema = schemathesis.openapi.from_dict(document(app), config=SchemathesisConfig.from_dict({}))
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    seen = 0
    for result in schema.exclude(path="/live").get_all_operations():  # its answer takes as long as requested
        operation = result.ok()

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        def ask(case: Any) -> None:
            wanted = case.as_transport_kwargs(base_url="http://testserver", headers={"authorization": "Bearer ann"})
            answer = users.client.request(**{name: value for name, value in wanted.items() if value is not None})
            case.validate_response(answer, checks=checks)

        ask()
        seen += 1
    assert seen > 20
