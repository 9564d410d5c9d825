from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import airflow_remote_worker
import pytest
from airflow_remote_protocol.tokens import TokenKind, make_token
from airflow_remote_worker.cli import main
from airflow_remote_worker.lifecycle import EXIT_REFUSED
from airflow_remote_worker.testing.fake_central import FakeCentral

from .tls_server import ForwardProxy


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_REMOTE_WORKER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_join_status_check_leave(central: FakeCentral, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text(central.enrolment_token(["q", "r"]) + "\n")
    assert main(["join", central.url, "--token-file", str(token), "--name", "barge-1"]) == 0
    assert "joined" in (out := capsys.readouterr().out)
    assert "q, r" in out
    assert main(["status", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["alive"], told["name"]) == (False, "barge-1")
    assert main(["check"]) == 0
    assert "FAIL" not in capsys.readouterr().out
    assert main(["leave"]) == 0
    assert central.worker("barge-1").is_revoked
    assert main(["run"]) == EXIT_REFUSED
    assert "join" in capsys.readouterr().err


def test_join_remembers_the_way(central: FakeCentral, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy that wants a login; afterwards no command is told of it again."""
    proxy = ForwardProxy(auth="u:p@ss")
    login = tmp_path / "login"
    login.write_text("u:p@ss")
    monkeypatch.chdir(tmp_path)
    token = central.enrolment_token(["q"])
    assert main(["join", central.url, "--token", token, "--proxy", proxy.url, "--proxy-auth-file", "login"]) == 0
    monkeypatch.chdir("/")
    assert main(["check"]) == 0
    seen = len(proxy.heads)
    assert main(["leave"]) == 0
    assert len(proxy.heads) > seen
    proxy.close()


def test_a_password_on_the_command_line_is_warned_of(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--proxy", "http://u:secret@127.0.0.1:1"]) == 1
    said = capsys.readouterr()
    assert "everyone who may list processes sees the password" in said.err
    assert "secret" not in said.err + said.out


def test_plain_http_is_warned_of_loudly(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["join", "http://central.invalid", "--insecure-http", "--token", make_token(TokenKind.ENROLMENT, bytes(32))])
    assert "NOT ENCRYPTED" in capsys.readouterr().err


def test_the_token_may_come_from_the_environment(
    central: FakeCentral, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["join", central.url]) == 2
    assert "--token-file" in capsys.readouterr().err
    monkeypatch.setenv("AIRFLOW_REMOTE_WORKER_TOKEN", central.enrolment_token(["q"]))
    assert main(["join", central.url]) == 0


def test_a_worker_is_not_replaced_by_accident(central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "one"]) == 0
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "two"]) == 1
    assert "leave first" in capsys.readouterr().err
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "two", "--force"]) == 0


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["join", "http://127.0.0.1:1", "--token", "arenr_cut"], "cut or altered"),
        (["join", "http://example.com", "--token", "x"], "unencrypted"),
        (["run", "--slots", "0"], "slots:"),
        (["run", "--bundle", "x"], "NAME=PATH"),
        (["run", "--log-level", "LOUD"], "log level"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(home: Path, argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_garbled_status_is_no_status(central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "a"]) == 0
    for body in (b"", b'{"pid": 7', b"[]", b"\xff\0", b'{"pid":7,"crc":"00000000"}'):
        (home / "status.json").write_bytes(body)
        assert main(["status"]) == 1
        assert "not running" in capsys.readouterr().out


def test_a_refused_token_is_told(central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = central.enrolment_token(["q"], uses=1)
    assert main(["join", central.url, "--token", token, "--name", "a"]) == 0
    assert main(["join", central.url, "--token", token, "--name", "b", "--force"]) == 1
    assert "token" in capsys.readouterr().err.lower()


def test_the_version_is_the_distribution_s() -> None:
    assert airflow_remote_worker.__version__ == version("airflow-remote-worker")
