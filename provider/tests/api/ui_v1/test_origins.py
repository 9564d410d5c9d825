"""With the browser's cookie, only pages of this site may make changes."""

from __future__ import annotations

import pytest
from airflow_remote_provider import compat

from testkit.ledger import enlist, worker_row

from .conftest import Users

PAUSE = ("PUT", "/workers/edge/intent")


@pytest.fixture(autouse=True)
def _base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "base_url", lambda: "https://airflow.example/base")


def _pause(users: Users, **headers: str) -> int:
    """Pause a worker with the cookie only; return the status, after a check that it matches the effect."""
    worker = enlist("edge")
    users.client.cookies.set("_token", "ann")
    answer = users.client.request("PUT", "/workers/edge/intent", json={"mode": "pause"}, headers=headers)
    is_paused = worker_row(worker.id).intent == "pause"
    assert is_paused is (answer.status_code < 300), answer.text
    return int(answer.status_code)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://airflow.example.evil.example"},
        {"origin": "https://airflow.example:444"},
        {"origin": "http://airflow.example"},
        {"origin": "http://testserver"},
        {"origin": "https://airflow.example:port"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "https://evil.example", "x-forwarded-host": "evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example", "authorization": "Basic YTpi"},
    ],
)
def test_a_page_of_another_site_changes_nothing(users: Users, headers: dict[str, str]) -> None:
    assert _pause(users, **headers) in (401, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://airflow.example"},
        {"origin": "https://airflow.example:443"},
        {"origin": "https://testserver"},
        {"origin": "https://proxy.example:8443", "host": "proxy.example:8443"},
        {"sec-fetch-site": "same-origin"},
    ],
)
def test_a_page_of_airflow_may_make_changes(users: Users, headers: dict[str, str]) -> None:
    assert _pause(users, **headers) < 300


def test_without_tls_an_http_origin_is_accepted(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "base_url", lambda: "")
    assert _pause(users, origin="http://testserver") < 300


def test_a_program_with_a_token_needs_no_origin(users: Users) -> None:
    enlist("edge")
    assert users.ann("PUT", "/workers/edge/intent", json={"mode": "pause"}).status_code < 300
    assert (
        users.ann("PUT", "/workers/edge/intent", json={"mode": "serve"}, headers={"origin": "https://x.example"}).status_code
        < 300
    )


def test_reads_with_the_cookie_are_accepted_from_any_origin(users: Users) -> None:
    users.client.cookies.set("_token", "ann")
    assert users.client.get("/workers", headers={"origin": "https://evil.example"}).status_code == 200


def test_every_route_that_makes_changes_checks_the_origin(users: Users) -> None:
    """Routes that are added later are included, since they are in the document."""
    users.client.cookies.set("_token", "ann")
    paths = users.ann.get("/openapi.json").json()["paths"]
    changing = [(method, path) for path, methods in paths.items() for method in methods if method not in ("get", "head")]
    assert len(changing) > 10
    for method, path in changing:
        where = path.replace("{", "").replace("}", "")
        assert users.client.request(method.upper(), where, json={}).status_code == 403, (method, path)
