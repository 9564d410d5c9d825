from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from airflow_remote_worker.cli import main
from airflow_remote_worker.lifecycle import EXIT_REFUSED
from airflow_remote_worker.system import service_unit
from airflow_remote_worker.system.service_unit import Unit
from airflow_remote_worker.testing.fake_central import FakeCentral


def options(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "["))]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW_REMOTE_WORKER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(service_unit, "SYSTEM_UNITS", tmp_path / "units")
    monkeypatch.setattr(service_unit, "RUNNING_MARK", tmp_path / "no-systemd")
    return tmp_path / "home"


@pytest.fixture
def joined(central: FakeCentral, home: Path) -> Path:
    assert main(["join", central.url, "--token", central.enrolment_token(["q"]), "--name", "w"]) == 0
    return home


def test_the_unit_keeps_tasks_running_and_waits_longer_than_the_drain() -> None:
    unit = options(Unit(("/x/airflow-remote-worker",), Path("/s"), user="alice", drain_s=100).render())
    assert unit["KillMode"] == "process"
    assert unit["Type"] == "notify"
    assert unit["User"] == "alice"
    assert unit["ExecStart"] == "/x/airflow-remote-worker run --state /s --drain-timeout-s 100"
    assert int(unit["TimeoutStopSec"]) > 100
    assert str(EXIT_REFUSED) in unit["RestartPreventExitStatus"].split()
    # Their private directories would be removed with the daemon, while tasks that outlive it still use them.
    assert not {"PrivateTmp", "DynamicUser", "RuntimeDirectory"} & unit.keys()


def test_hardening_can_be_left_out_for_tasks_that_use_sudo() -> None:
    hardened = options(Unit(("/x",), Path("/s"), user="alice").render())
    assert hardened["NoNewPrivileges"] == "yes"
    lax = options(Unit(("/x",), Path("/s"), user="alice", allow_sudo=True).render())
    hardening = ("NoNew", "Protect", "Private", "Restrict", "Lock", "Capab", "SystemCall")
    assert not [name for name in lax if name.startswith(hardening) and "Exit" not in name]


def test_a_service_of_root_keeps_the_capabilities_to_run_tasks_as_other_users() -> None:
    assert "CapabilityBoundingSet" in options(Unit(("/x",), Path("/s"), user="alice").render())
    assert "CapabilityBoundingSet" not in options(Unit(("/x",), Path("/s"), user="root").render())


def test_special_characters_in_paths_are_escaped_for_systemd() -> None:
    unit = options(Unit(("/my apps/x",), Path("/s $HOME/100%"), user="alice").render())
    assert unit["ExecStart"].startswith('"/my apps/x" run --state "/s $$HOME/100%%" ')
    assert unit["EnvironmentFile"] == "-/s $HOME/100%%/service.env"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    "choices", [["--system", "--user-name", "daemon"], ["--system", "--user-name", "daemon", "--allow-sudo"], ["--user"]]
)
def test_systemd_accepts_the_unit(choices: list[str], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "install", "--print", *choices]) == 0
    unit = tmp_path / "airflow-remote-worker.service"
    unit.write_text(capsys.readouterr().out)
    # A user's manager needs a login session even to verify; the grammar is the same.
    verified = subprocess.run(["systemd-analyze", "--man=no", "verify", unit], capture_output=True, text=True)
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, complaints) == (0, [])


def test_install_writes_the_unit_and_uninstall_removes_it(
    joined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = tmp_path / "units/airflow-remote-worker.service"
    assert main(["service", "install", "--system", "--user-name", "daemon"]) == 0
    assert "systemctl enable --now airflow-remote-worker" in capsys.readouterr().out
    assert options(unit.read_text())["User"] == "daemon"
    assert unit.stat().st_mode & 0o777 == 0o644
    assert main(["service", "install", "--system", "--user-name", "daemon", "--drain-s", "5"]) == 0
    assert "--drain-timeout-s 5" in unit.read_text()
    assert main(["service", "uninstall", "--system"]) == 0
    assert not unit.exists()
    assert main(["service", "uninstall", "--system"]) == 0


def test_a_user_s_own_service_and_a_second_worker_have_their_own_files(
    joined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", "install", "--user", "--unit", "second"]) == 0
    unit = options((tmp_path / "config/systemd/user/second.service").read_text())
    assert unit["WantedBy"] == "default.target"
    assert "User" not in unit
    assert "enable-linger" in capsys.readouterr().out


def test_a_worker_that_has_not_joined_gets_no_service(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "install", "--user"]) == EXIT_REFUSED
    assert "has not joined a central" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["install", "--system"], "name the directory with --state"),
        (["install", "--system", "--user-name", "no-such-user"], "no user 'no-such-user'"),
        (["install", "--user", "--user-name", "daemon"], "always runs as that user"),
        (["status", "--user"], "service install"),
    ],
)
def test_usage_errors_name_the_remedy(argv: list[str], expected: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", *argv]) == 2
    assert expected in capsys.readouterr().err


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs in the place of systemd's that note their arguments; return the file with them."""
    programs, notes = tmp_path / "programs", tmp_path / "notes"
    programs.mkdir()
    for name in ("systemctl", "loginctl"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {notes}\ntest ! -e {tmp_path}/fails\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return notes


def test_with_now_the_service_is_started_also_without_a_login(joined: Path, systemctl: Path) -> None:
    assert main(["service", "install", "--user", "--now"]) == 0
    assert systemctl.read_text().splitlines() == [
        "loginctl enable-linger",
        "systemctl --user enable airflow-remote-worker",
        "systemctl --user restart airflow-remote-worker",
    ]


def test_a_service_that_does_not_start_is_an_error_with_a_way_without_systemd(
    joined: Path, systemctl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fails").touch()
    assert main(["service", "install", "--user", "--now"]) == 2
    shown = capsys.readouterr().err
    assert "systemctl --user enable airflow-remote-worker failed" in shown
    assert f"run --state {joined}" in shown


def test_the_unit_of_a_worker_from_one_file_names_a_copy_that_stays(
    joined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tmp_path / "cache" / "0123-45"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/airflow-remote-worker").write_text("the program")
    (prefix / "unpacked.json").write_text("{}")
    monkeypatch.setattr("sys.prefix", str(prefix))
    assert main(["service", "install", "--user"]) == 0
    program = joined / "installed/current/bin/airflow-remote-worker"
    assert f"ExecStart={program} run" in (tmp_path / "config/systemd/user/airflow-remote-worker.service").read_text()
    assert program.read_text() == "the program"
