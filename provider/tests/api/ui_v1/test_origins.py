"""With the browser's cookie only pages of this very site change anything."""

from __future__ import annotations

import pytest
from airflow_remote_provider import compat

from testkit.ledger import enlist, worker_row

from .conftest import People

PAUSE = ("PUT", "/workers/edge/intent")


@pytest.fixture(autouse=True)
def _base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "base_url", lambda: "https://airflow.example/base")


def _pause(people: People, **headers: str) -> int:
    """Pause a worker with the cookie alone; return the status, having seen that it says what has happened."""
    worker = enlist("edge")
    people.client.cookies.set("_token", "ann")
    answer = people.client.request("PUT", "/workers/edge/intent", json={"mode": "pause"}, headers=headers)
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
def test_another_sites_page_changes_nothing(people: People, headers: dict[str, str]) -> None:
    assert _pause(people, **headers) in (401, 403)


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
def test_airflows_own_page_does(people: People, headers: dict[str, str]) -> None:
    assert _pause(people, **headers) < 300


def test_without_tls_a_page_without_tls_is_our_own(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "base_url", lambda: "")
    assert _pause(people, origin="http://testserver") < 300


def test_a_program_with_a_token_needs_no_origin(people: People) -> None:
    enlist("edge")
    assert people.ann("PUT", "/workers/edge/intent", json={"mode": "pause"}).status_code < 300
    assert (
        people.ann("PUT", "/workers/edge/intent", json={"mode": "serve"}, headers={"origin": "https://x.example"}).status_code
        < 300
    )


def test_every_page_may_read_with_the_cookie_what_browsers_let_it_see(people: People) -> None:
    people.client.cookies.set("_token", "ann")
    assert people.client.get("/workers", headers={"origin": "https://evil.example"}).status_code == 200


def test_every_route_that_changes_something_asks(people: People) -> None:
    """Also one that is added later: it is there in the document."""
    people.client.cookies.set("_token", "ann")
    paths = people.ann.get("/openapi.json").json()["paths"]
    changing = [(method, path) for path, methods in paths.items() for method in methods if method not in ("get", "head")]
    assert len(changing) > 10
    for method, path in changing:
        where = path.replace("{", "").replace("}", "")
        assert people.client.request(method.upper(), where, json={}).status_code == 403, (method, path)
