"""Which server a command calls, and with which token."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import pytest
from airflow_remote_provider.cli.server import Server, named_server


def named(**options: object) -> Server | None:
    nothing: dict[str, object] = {"server": None, "token_file": None, "ca": None, "insecure_http": False}
    return named_server(argparse.Namespace(**(nothing | options)))


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_REMOTE_SERVER", raising=False)
    monkeypatch.delenv("AIRFLOW_REMOTE_CA", raising=False)
    monkeypatch.setenv("AIRFLOW_REMOTE_TOKEN", " a.b-c_d \n")


def test_without_a_server_the_database_is_used() -> None:
    assert named() is None


def test_an_option_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_REMOTE_SERVER", "https://a.example.org/sub/path/")
    monkeypatch.setenv("AIRFLOW_REMOTE_CA", "ca.pem")
    assert named() == Server("https://a.example.org/sub/path", "a.b-c_d", "$AIRFLOW_REMOTE_TOKEN", "ca.pem")
    other = named(server="https://b.example.org", ca="other.pem")
    assert other is not None and (other.url, other.ca) == ("https://b.example.org", "other.pem")
    assert named(server="") is None


@pytest.mark.parametrize("options", [{"token_file": "t"}, {"ca": "c"}, {"insecure_http": True}])
def test_an_option_for_servers_is_refused_without_a_server(options: dict[str, object]) -> None:
    flag = "--" + next(iter(options)).replace("_", "-")
    with pytest.raises(SystemExit, match=f"{flag}: no server is named"):
        named(**options)


@pytest.mark.parametrize("url", ["a.example.org", "ftp://a.example.org", "https://", "https://a:99999", "http://[::1"])
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(SystemExit, match="not a web address"):
        named(server=url)


@pytest.mark.parametrize("url", ["https://ann:secret@a.example.org", "https://a.example.org?x=1", "https://a.example.org#x"])
def test_an_address_with_more_than_host_and_path_is_refused_without_showing_its_secret(url: str) -> None:
    with pytest.raises(SystemExit, match="no user, password, query or fragment") as refused:
        named(server=url)
    assert "secret" not in str(refused.value)


def test_no_token_is_sent_unencrypted_beyond_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="would send your token unencrypted; use https, or --insecure-http"):
        named(server="http://a.example.org")
    assert named(server="http://a.example.org", insecure_http=True) is not None
    assert "NOT ENCRYPTED" in capsys.readouterr().err
    for here in ("http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080"):
        assert named(server=here) is not None
    assert capsys.readouterr().err == ""


def test_a_token_comes_from_a_file_or_stdin_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("from.a.file\n")
    found = named(server="https://a.example.org", token_file=str(file))
    assert found is not None and (found.token, found.source) == ("from.a.file", str(file))
    monkeypatch.setattr(sys, "stdin", io.StringIO("from.stdin\nmore\n"))
    found = named(server="https://a.example.org", token_file="-")
    assert found is not None and found.token == "from.stdin"


def test_a_missing_or_malformed_token_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    for content, message in (("", "holds no token; put a token"), ("a b", "with spaces"), ("tökén", "special characters")):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(SystemExit, match=message) as refused:
            named(server="https://a.example.org", token_file=str(file))
        assert not content or content not in str(refused.value)
    with pytest.raises(SystemExit, match="No such file"):
        named(server="https://a.example.org", token_file=str(tmp_path / "nothing"))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SystemExit, match="it is not text"):
        named(server="https://a.example.org", token_file=str(file))
    monkeypatch.delenv("AIRFLOW_REMOTE_TOKEN")
    with pytest.raises(SystemExit, match=r"AIRFLOW_REMOTE_TOKEN holds no token"):
        named(server="https://a.example.org")


def test_the_token_is_not_in_the_repr_of_the_server() -> None:
    assert "a.b-c_d" not in repr(named(server="https://a.example.org"))
