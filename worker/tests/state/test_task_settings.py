from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from airflow_remote_protocol.messages import TaskSettings
from airflow_remote_worker.state.task_settings import TaskSettingsKeeper

BERLIN = TaskSettings("r1", {"core.default_timezone": "Europe/Berlin", "later.option": "x"})
TOKYO = TaskSettings("r2", {"core.default_timezone": "Asia/Tokyo", "api.base_url": "http://a:b@c"})


@pytest.fixture
def used() -> list[Mapping[str, str]]:
    return []


@pytest.fixture
def keeper(tmp_path: Path, used: list[Mapping[str, str]]) -> TaskSettingsKeeper:
    return TaskSettingsKeeper(tmp_path / "task-settings.json", used.append)


def test_only_known_and_valid_settings_are_used(
    keeper: TaskSettingsKeeper, used: list[Mapping[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    keeper.receive(BERLIN)
    keeper.receive(TOKYO)
    assert used == [{"core.default_timezone": "Europe/Berlin"}, {"core.default_timezone": "Asia/Tokyo"}]
    assert keeper.revision == "r2"
    assert "later.option" not in caplog.text
    assert "api.base_url has a value that can't be used here" in caplog.text


def test_a_change_is_logged_once_with_the_changed_names(keeper: TaskSettingsKeeper, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    keeper.receive(BERLIN)
    assert "have changed" not in caplog.text
    keeper.receive(TaskSettings("r1b", dict(BERLIN.values)))
    assert "have changed" not in caplog.text
    mark = keeper.mark
    keeper.receive(TOKYO)
    assert "have changed (core.default_timezone)" in caplog.text
    assert keeper.mark != mark


def test_the_next_daemon_has_them_before_central_answers(
    keeper: TaskSettingsKeeper, used: list[Mapping[str, str]], tmp_path: Path
) -> None:
    keeper.load()
    assert (used, keeper.revision, keeper.known.is_set()) == ([], "", False)
    keeper.receive(BERLIN)
    later = TaskSettingsKeeper(tmp_path / "task-settings.json", used.append)
    later.load()
    assert (used[-1], later.revision, later.known.is_set()) == (used[0], "r1", True)


def test_damaged_settings_count_as_missing(keeper: TaskSettingsKeeper, used: list[Mapping[str, str]], tmp_path: Path) -> None:
    (tmp_path / "task-settings.json").write_text("{}")
    keeper.load()
    assert (used, keeper.revision) == ([], "")


def test_tasks_get_settings_even_if_they_can_t_be_stored(used: list[Mapping[str, str]], tmp_path: Path) -> None:
    TaskSettingsKeeper(tmp_path / "nowhere" / "task-settings.json", used.append).receive(BERLIN)
    assert len(used) == 1
