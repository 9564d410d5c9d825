"""Messages when central refuses a request, does not answer, or something else answers in its place."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_provider.cli import client as module
from airflow_remote_provider.cli.client import PREFIX, Client, connect
from airflow_remote_provider.cli.server import Server
from airflow_remote_provider.cli.words import CentralUnavailable
from airflow_remote_provider.ledger.views.queues import QueueRow
from fastapi import FastAPI, Request, Response

from testkit.authority import Authority
from testkit.servers.uvicorn_app import Serving

Answer = Callable[[Request], Response]
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that starts a server which answers every request by *answer*, and returns its URL."""
    with ExitStack() as stack:

        def start(answer: Answer, *, certificate: Path | None = None) -> str:
            app = FastAPI()

            @app.api_route("/{path:path}", methods=["GET", "PUT", "DELETE"])
            async def everything(request: Request) -> Response:
                return answer(request)

            return stack.enter_context(Serving(app, "/airflow", certificate=certificate)).url + "/airflow"

        yield start


def error_of(url: str, ask: Callable[[Client], Any] = lambda client: client.get(list[str], "workers"), **how: Any) -> str:
    """Make a request that fails; return the sentence that ends the command."""
    with pytest.raises(SystemExit) as ended:
        ask(connect(Server(url, "a-token", "$AIRFLOW_REMOTE_TOKEN", **how)))
    assert isinstance(ended.value.code, str) and "a-token" not in ended.value.code
    return ended.value.code


def problem(status: int, detail: str, code: str) -> Answer:
    body = {"title": "…", "status": status, "detail": detail, "code": code}
    return lambda request: answered(status, body, "application/problem+json")


def answered(status: int, body: Any, kind: str = "application/json") -> Response:
    return Response(body if isinstance(body, str) else json.dumps(body), status, media_type=kind)


def test_a_refusal_is_shown_in_central_s_words(serve: Serve) -> None:
    url = serve(problem(404, "there is no worker named 'x'; `airflow remote workers list` shows all workers", "not-found"))
    assert error_of(url) == "there is no worker named 'x'; `airflow remote workers list` shows all workers"


def test_only_a_server_error_means_that_central_is_unavailable(serve: Serve) -> None:
    for answer, is_unavailable in (
        (problem(503, "the database does not answer", "busy"), True),
        (lambda request: answered(502, "<html>", "text/html"), True),
        (problem(404, "nobody", "not-found"), False),
    ):
        with pytest.raises(SystemExit) as ended:
            connect(Server(serve(answer), "a-token", "$AIRFLOW_REMOTE_TOKEN")).get(list[str], "workers")
        assert isinstance(ended.value, CentralUnavailable) is is_unavailable


def test_control_sequences_are_removed(serve: Serve) -> None:
    assert "\033" not in error_of(serve(problem(422, "\033[2Jred", "invalid")))


def test_a_refused_token_is_named_by_its_source_with_the_way_to_a_new_one(serve: Serve) -> None:
    url = serve(problem(401, "Invalid JWT token; log in to Airflow", "unauthorized"))
    message = error_of(url)
    assert "refuses the token in $AIRFLOW_REMOTE_TOKEN" in message and f"POST {url}/auth/token" in message


@pytest.mark.parametrize(("status", "kind"), [(200, "text/html"), (403, "text/html"), (502, "text/html")])
def test_a_page_of_something_in_between_is_named(serve: Serve, status: int, kind: str) -> None:
    message = error_of(serve(lambda request: answered(status, "<html><title> Corp&nbsp;\n Proxy </title>", kind)))
    assert f"answered {status} {kind}" in message and "titled 'Corp Proxy'" in message and "provider is installed" in message


def test_an_airflow_without_the_provider_is_not_taken_for_central(serve: Serve) -> None:
    assert "not the Remote Executor's API" in error_of(serve(lambda request: answered(404, {"detail": "Not Found"})))
    message = error_of(serve(lambda request: answered(403, {"detail": "no problem of ours"}, "application/problem+json")))
    assert "not the Remote Executor's API" in message


def test_a_redirect_is_named_and_not_followed(serve: Serve) -> None:
    url = serve(lambda request: Response(status_code=302, headers={"location": "https://login.example.org/?back=1"}))
    assert "a redirect to https://login.example.org/?back=1, which is not followed" in error_of(url)


def test_a_change_that_central_does_not_confirm_is_an_error(serve: Serve) -> None:
    for body, kind in (("", "text/plain"), ("{}", "application/json")):
        url = serve(lambda request, body=body, kind=kind: answered(200, body, kind))
        assert "not the Remote Executor's API" in error_of(url, lambda client: client.send("DELETE", "workers", "edge"))
    assert "does not understand" in error_of(url, lambda client: client.change(QueueRow, "PUT", "workers", "edge"))


def test_an_answer_of_another_version_is_named_with_the_invalid_field(serve: Serve) -> None:
    message = error_of(serve(lambda request: answered(200, ["a", 1])))
    assert "(1: Input should be a valid string)" in message and "another version" in message


def test_an_unreachable_server_is_named_with_the_cause() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert f"{url} can't be reached: Connection refused" in error_of(url)
    assert "can't be reached" in error_of("http://nowhere.invalid")


def test_a_request_to_a_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "did not answer in time" in error_of(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_private_authority_is_trusted_once_it_is_named(serve: Serve, tmp_path: Path) -> None:
    corp = Authority(tmp_path, "corp")
    url = serve(lambda request: answered(200, ["edge"]), certificate=corp.issue("central", "127.0.0.1"))
    message = error_of(url)
    assert "its certificate is not trusted" in message and "--ca" in message
    assert connect(Server(url, "a-token", "", str(corp.file))).get(list[str], "workers") == ["edge"]
    for content in (None, "rubbish"):
        if content is not None:
            (tmp_path / "none.pem").write_text(content)
        assert "none.pem can't be used" in error_of(url, ca=str(tmp_path / "none.pem"))


def test_a_wrong_certificate_path_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing"))
    assert "SSL_CERT_FILE" in error_of("https://127.0.0.1:9") and "use --ca" in error_of("https://127.0.0.1:9")


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://proxy.example.org")
    assert "a proxy that the environment names can't be used" in error_of("http://127.0.0.1:9")


def test_an_unchanged_response_is_not_sent_again(serve: Serve) -> None:
    tags = []

    def answer(request: Request) -> Response:
        tags.append(request.headers.get("if-none-match"))
        if tags[-1] == '"1"':
            return Response(status_code=304)
        return Response('["edge"]', headers={"etag": '"1"'}, media_type="application/json")

    client = connect(Server(serve(answer), "a-token", ""))
    assert [client.get(list[str], "workers") for _ in range(3)] == [["edge"]] * 3
    client.get(list[str], "workers", query={"after": "x"})
    assert tags == [None, '"1"', '"1"', None]


def test_a_list_that_changes_for_days_does_not_fill_memory(serve: Serve) -> None:
    tagged = {"etag": '"1"'}
    url = serve(lambda request: Response('["edge"]', headers=tagged, media_type="application/json"))
    client = connect(Server(url, "a-token", ""))
    for number in range(module.MOST_KNOWN + 10):
        client.get(list[str], "workers", query={"after": str(number)})
    assert len(client._known) <= module.MOST_KNOWN


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "a?b#c", "ü %2F", "a;b"])
def test_a_name_stays_one_segment_of_the_path(serve: Serve, name: str) -> None:
    url = serve(lambda request: answered(200, [request.scope["path"]]))
    client = connect(Server(url, "a-token", ""))
    assert client.get(list[str], "workers", name, "x") == [f"/airflow{PREFIX}/workers/{name}/x"]


def test_an_empty_name_is_refused(serve: Serve) -> None:
    assert "a name is empty" in error_of("http://127.0.0.1:9", lambda client: client.get(list[str], "workers", ""))
