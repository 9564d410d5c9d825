from __future__ import annotations

import pendulum
import pytest
from airflow import settings
from airflow.configuration import conf
from airflow_remote_protocol.task_settings import OPTIONS, filter_usable
from airflow_remote_provider import task_settings


def test_the_values_of_airflows_configuration_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES", "recipe,dose")
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TASK_EXECUTION_TIMEOUT", "90")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/a")
    sent = task_settings.read()
    assert sent.values["core.sensitive_var_conn_names"] == "recipe,dose"
    assert sent.values["core.default_task_execution_timeout"] == "90"
    assert sent.values["api.base_url"] == "https://airflow.example.com/a"
    assert sent.values == filter_usable(sent.values)
    monkeypatch.setenv("AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES", "recipe")
    assert task_settings.read().revision != sent.revision


def test_every_listed_option_exists_in_airflow_and_its_default_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OPTIONS:
        section, option = name.split(".")
        monkeypatch.delenv(f"AIRFLOW__{section.upper()}__{option.upper()}", raising=False)
        assert option in conf.configuration_description[section]["options"], name
    sent = task_settings.read().values
    without_default = {"api.base_url", "email.from_email", "logging.namespace_levels"}
    assert OPTIONS.keys() - sent.keys() <= without_default


def test_an_address_with_a_password_does_not_leave_central(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://admin:hunter2@airflow.example.com")
    assert "api.base_url" not in task_settings.read().values
    assert "[api] base_url is not sent to workers" in caplog.text
    assert "hunter2" not in caplog.text


def test_the_local_time_zone_of_central_is_sent_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "system")
    monkeypatch.setattr(settings, "TIMEZONE", pendulum.timezone("Europe/Berlin"))
    assert task_settings.read().values["core.default_timezone"] == "Europe/Berlin"


def test_an_option_that_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def get(section: str, option: str, **_: object) -> str | None:
        if option == "default_timezone":
            raise OSError("no such command")
        return None

    monkeypatch.setattr(conf, "get", get)
    assert task_settings.read().values == {}
    assert "[core] default_timezone can't be read and is not sent to workers: no such command" in caplog.text
