from __future__ import annotations

import stat
from pathlib import Path

import pytest
from airflow_remote_worker import system
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.state.directory import LONGEST_SOCKET_PATH, Membership, NotJoined, State, StateInUse

MEMBERSHIP = Membership(central="https://a", worker_id="1", name="w", credential="secret")


def test_only_the_owner_can_read_anything(state: State) -> None:
    state.join(MEMBERSHIP)
    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700
    assert stat.S_IMODE((state.root / "credential.json").stat().st_mode) == 0o600
    assert state.membership() == MEMBERSHIP


def test_a_directory_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o755)
    State(tmp_path / "s").prepare()
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700


def test_without_a_credential_the_error_says_how_to_join(state: State) -> None:
    with pytest.raises(NotJoined, match="join"):
        state.membership()


def test_a_damaged_credential_is_not_used(state: State) -> None:
    (state.root / "credential.json").write_text('{"central": ')
    with pytest.raises(Damaged, match=r"credential\.json"):
        state.membership()


def test_two_daemons_can_t_share_a_directory(state: State) -> None:
    with state.locked():
        assert State(state.root).is_locked()
        with pytest.raises(StateInUse), State(state.root).locked():
            pass
    assert not state.is_locked()


def test_the_instance_stays_over_restarts_and_differs_on_a_copy(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    first = state.instance_id()
    assert State(state.root).instance_id() == first
    monkeypatch.setattr(system, "machine_id", lambda: "another machine")
    assert state.instance_id() != first


def test_a_long_path_gets_a_short_private_socket_that_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path)[:60])
    state = State(tmp_path / ("x" * 100))
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    path = state.socket_path()
    assert len(str(path)) < LONGEST_SOCKET_PATH
    assert path == state.socket_path()
    assert system.is_private(path.parent)
    path.parent.chmod(0o755)
    with pytest.raises(Damaged, match="open to others"):
        state.socket_path()
    path.parent.rmdir()


def test_replacing_the_credential_keeps_the_previous_one_and_the_settings(state: State) -> None:
    state.join(MEMBERSHIP)
    state.replace_credential("newer", previous="secret")
    stored = state.membership()
    assert (stored.credential, stored.previous, stored.central, stored.name) == ("newer", "secret", "https://a", "w")
    assert stat.S_IMODE((state.root / "credential.json").stat().st_mode) == 0o600
    (state.root / "credential.json").write_text("{")
    assert State(state.root).membership() == stored


def test_settings_of_a_central_are_not_used_for_the_next_one(state: State) -> None:
    state.join(MEMBERSHIP)
    state.task_settings_path.write_bytes(b"{}")
    state.join(MEMBERSHIP)
    assert not state.task_settings_path.exists()
    state.task_settings_path.write_bytes(b"{}")
    state.forget()
    assert not state.task_settings_path.exists()


def test_a_shared_directory_lets_others_pass_to_code_alone(tmp_path: Path) -> None:
    root = tmp_path / "s"
    root.mkdir(mode=0o755)
    (root / "worker.toml").write_text("")
    (root / "worker.toml").chmod(0o644)
    (root / "own").mkdir(mode=0o755)
    (root / "code").mkdir(mode=0o755)
    (root / "link").symlink_to(tmp_path)
    State(root, is_shared=True).prepare()
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in root.iterdir() if not path.is_symlink()}
    assert stat.S_IMODE(root.stat().st_mode) == 0o711
    assert modes == {
        "worker.toml": 0o600,
        "own": 0o700,
        "code": 0o755,
        **dict.fromkeys(("jobs", "triggers", "hosts", "airflow-home", "runtimes"), 0o700),
    }
    assert stat.S_IMODE(tmp_path.stat().st_mode) & 0o077 == 0
    State(root).prepare()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
