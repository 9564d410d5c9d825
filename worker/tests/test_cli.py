from __future__ import annotations

import errno
import json
import os
import pwd
import re
import sys
from importlib.metadata import version
from pathlib import Path

import airflow_remote_worker
import pytest
from airflow_remote_protocol.tokens import TokenKind, make_token
from airflow_remote_worker import cli, system
from airflow_remote_worker.cli import main
from airflow_remote_worker.config import load
from airflow_remote_worker.jobs import launcher
from airflow_remote_worker.lifecycle import EXIT_REFUSED
from airflow_remote_worker.state.directory import State, explain_unusable
from airflow_remote_worker.testing.fake_central import FakeCentral

from testkit.authority import Authority

from .conftest import FAKE_RUNTIME
from .tls_server import ForwardProxy, tls_central


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(launcher, "LAUNCHER", FAKE_RUNTIME)
    monkeypatch.setenv("AIRFLOW_REMOTE_WORKER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_join_status_check_leave(central: FakeCentral, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text(central.enrolment_token(["q", "r"]) + "\n")
    able = ["--runtime-python", sys.executable, "--bundle", f"dags={tmp_path}"]
    assert main(["join", central.url, "--token-file", str(token), "--name", "barge-1", *able]) == 0
    assert "joined" in (out := capsys.readouterr().out)
    assert "q, r" in out
    assert main(["status", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["alive"], shown["name"]) == (False, "barge-1")
    assert main(["check"]) == 0
    assert "FAIL" not in capsys.readouterr().out
    assert main(["leave"]) == 0
    assert central.worker("barge-1").is_revoked
    assert main(["run"]) == EXIT_REFUSED
    assert "join" in capsys.readouterr().err


def test_an_ephemeral_worker_whose_name_is_taken_joins_with_a_suffix(
    central: FakeCentral, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = central.enrolment_token(["q"], uses=3)
    able = ["--runtime-python", sys.executable, "--token", token, "--name", "runner"]
    assert main(["join", central.url, *able]) == 0
    assert main(["join", central.url, *able, "--state", str(tmp_path / "b")]) == 1
    assert "runner" in capsys.readouterr().err
    assert main(["join", central.url, *able, "--ephemeral", "--state", str(tmp_path / "c")]) == 0
    assert re.search(r"as runner-[0-9a-f]{8},", capsys.readouterr().out)
    assert State(tmp_path / "c").membership().ephemeral and not State(home).membership().ephemeral


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_times_have_units(text: str, seconds: float) -> None:
    assert cli._seconds(text) == seconds


def test_a_time_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--idle-exit", "soon"])
    assert "write it as 90s, 10m or 1h" in capsys.readouterr().err


def test_join_stores_the_network_settings(
    central: FakeCentral, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Join through a proxy that requires a login; later commands use it without flags."""
    proxy = ForwardProxy(auth="u:p@ss")
    login = tmp_path / "login"
    login.write_text("u:p@ss")
    monkeypatch.chdir(tmp_path)
    token = central.enrolment_token(["q"])
    able = ["--runtime-python", sys.executable, "--bundle", f"dags={tmp_path}"]
    assert main(["join", central.url, "--token", token, "--proxy", proxy.url, "--proxy-auth-file", "login", *able]) == 0
    monkeypatch.chdir("/")
    assert main(["check"]) == 0
    seen = len(proxy.heads)
    assert main(["leave"]) == 0
    assert len(proxy.heads) > seen
    proxy.close()


def test_join_writes_settings_that_the_daemon_reads_and_no_file_is_replaced(
    central: FakeCentral, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / 'a "dir" of ü\x7f'
    odd.mkdir()
    flags = ["--slots", "3", "--runtime-python", "bin/python", "--bundle", "dags-folder=.", "--bundle", f"a.b c={odd}"]
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "a", *flags]) == 0
    config = load({"state": str(home)})
    assert (config.slots, config.runtime.python) == (3, tmp_path / "bin/python")
    assert {name: bundle.path for name, bundle in config.bundles.items()} == {"dags-folder": tmp_path, "a.b c": odd}
    assert "next:" not in capsys.readouterr().out
    written = (home / "worker.toml").read_text()
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--force", "--slots", "4"]) == 2
    assert "--slots: " in (err := capsys.readouterr().err)
    assert "worker.toml exists" in err
    assert (home / "worker.toml").read_text() == written


def test_join_says_where_the_runtime_comes_from(central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "a"]) == 0
    assert "tasks run in a runtime that central sends; next: airflow-remote-worker check" in capsys.readouterr().out
    enrolment = json.loads(central.requests_to("enrol")[0].body)
    assert enrolment["facts"]["platform"].startswith("cp3")


def test_join_warns_of_an_interpreter_that_can_t_be_used(
    central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_REMOTE_WORKER_RUNTIME__INTERPRETER", "/nowhere/python")
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "a"]) == 0
    assert "warning: /nowhere/python can't be used for runtimes from central" in capsys.readouterr().out


def test_join_by_the_address_of_a_page_names_the_right_one(
    central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = central.enrolment_token(["q"])
    assert main(["join", f"{central.url}/home", "--token", token]) == 1
    assert f"leave out /home and use {central.url}," in capsys.readouterr().err
    assert main(["join", central.url, "--token", token]) == 0, "the failed attempt spent nothing"


def test_join_without_the_authority_names_the_issuer_and_the_flag(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corp = Authority(tmp_path / "corp", "Corp Root CA")
    token = make_token(TokenKind.ENROLMENT, bytes(32))
    with tls_central(corp.issue("central", "127.0.0.1")) as served:
        assert main(["join", f"https://127.0.0.1:{served.port}", "--token", token]) == 1
    err = capsys.readouterr().err
    assert "was issued by O=Corp, CN=Corp Root CA" in err
    assert "--ca-file" in err
    assert len(err.splitlines()) == 1


def test_check_of_an_address_needs_no_membership(central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", central.url]) == 0
    assert "use this address to join" in capsys.readouterr().out
    assert not home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's directory")
def test_root_stores_no_credential_in_another_user_s_directory(
    central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    os.chown(home, pwd.getpwnam("nobody").pw_uid, 0)
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "a"]) == 2
    err = capsys.readouterr().err
    assert f"{home} belongs to nobody" in err
    assert "runuser -u nobody -- " in err
    assert list(home.iterdir()) == []


def test_a_directory_that_can_t_be_read_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "worker.toml"))

    monkeypatch.setattr(cli, "load", forbidden)
    assert main(["status", "--state", str(tmp_path)]) == 1
    assert f"the state directory {tmp_path} can't be used" in capsys.readouterr().err


def test_another_user_s_state_directory_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "user_name", lambda: "visitor")
    text = explain_unusable(tmp_path, PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "lock"))) or ""
    assert f"the state directory {tmp_path} can't be used" in text
    assert f"it belongs to {tmp_path.owner()}, not to visitor; run this as {tmp_path.owner()} (runuser -u " in text


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EROFS, "its file system is read-only; remount it writable, or use another directory with --state"),
        (errno.ENOTDIR, "a file with that name exists; use another directory"),
    ],
)
def test_a_state_directory_that_can_t_be_used_is_named_with_the_remedy(tmp_path: Path, number: int, expected: str) -> None:
    error = OSError(number, os.strerror(number), str(tmp_path / "jobs"))
    assert expected in (explain_unusable(tmp_path, error) or "")
    assert explain_unusable(tmp_path / "elsewhere", error) is None


def test_a_password_on_the_command_line_causes_a_warning(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--proxy", "http://u:secret@127.0.0.1:1"]) == 1
    said = capsys.readouterr()
    assert "the process list shows its password to all users" in said.err
    assert "secret" not in said.err + said.out


def test_plain_http_causes_a_warning(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["join", "http://central.invalid", "--insecure-http", "--token", make_token(TokenKind.ENROLMENT, bytes(32))])
    assert "NOT ENCRYPTED" in capsys.readouterr().err


def test_the_token_can_come_from_the_environment(
    central: FakeCentral, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["join", central.url]) == 2
    assert "--token-file" in capsys.readouterr().err
    monkeypatch.setenv("AIRFLOW_REMOTE_WORKER_TOKEN", central.enrolment_token(["q"]))
    assert main(["join", central.url]) == 0


def test_a_worker_is_replaced_only_with_force(central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "one"]) == 0
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "two"]) == 1
    assert "leave first" in capsys.readouterr().err
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "two", "--force"]) == 0


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["join", "http://127.0.0.1:1", "--token", "arenr_cut"], "cut or altered"),
        (["join", "http://example.com", "--token", "x"], "unencrypted"),
        (["run", "--slots", "0"], "slots:"),
        (["run", "--bundle", "x"], "NAME=PATH"),
        (["run", "--log-level", "LOUD"], "log level"),
    ],
)
def test_a_usage_error_is_one_line_that_names_the_cause(
    home: Path, argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert len(err.splitlines()) == 1


def test_a_damaged_status_file_counts_as_not_running(
    central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "a"]) == 0
    for body in (b"", b'{"pid": 7', b"[]", b"\xff\0", b'{"pid":7,"crc":"00000000"}'):
        (home / "status.json").write_bytes(body)
        assert main(["status"]) == 1
        assert "not running" in capsys.readouterr().out


def test_a_refused_token_is_reported(central: FakeCentral, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = central.enrolment_token(["q"], uses=1)
    assert main(["join", central.url, "--token", token, "--name", "a"]) == 0
    assert main(["join", central.url, "--token", token, "--name", "b", "--force"]) == 1
    assert "token" in capsys.readouterr().err.lower()


def test_the_version_is_the_distribution_s() -> None:
    assert airflow_remote_worker.__version__ == version("airflow-remote-worker")
