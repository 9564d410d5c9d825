from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from airflow_remote_worker.local import job_files
from airflow_remote_worker.shim import task_settings

TIMEZONE = {"core.default_timezone": "Europe/Berlin"}


def test_central_s_value_is_used_if_the_site_has_set_none() -> None:
    assert task_settings.combined(TIMEZONE, {}) == {"AIRFLOW__CORE__DEFAULT_TIMEZONE": "Europe/Berlin"}


def test_the_site_s_own_value_overrides_central_s() -> None:
    assert task_settings.combined(TIMEZONE, {("core", "default_timezone"): "Asia/Tokyo"}) == {}


def test_the_site_s_environment_overrides_its_file(tmp_path: Path) -> None:
    (tmp_path / "airflow.cfg").write_text(
        "[core]\n# default_timezone = utc\nDefault_Owner = %(x)s\n[API]\nbase_url = http://file\n"
    )
    environ = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__API__BASE_URL": "http://environment",
        "AIRFLOW__ODD": "1",
        "OTHER__A__B": "1",
    }
    assert task_settings.read_site_settings(environ) == {
        ("core", "default_owner"): "%(x)s",
        ("api", "base_url"): "http://environment",
    }
    (tmp_path / "airflow.cfg").write_text("[webserver]\nbase_url = http://old")
    assert task_settings.read_site_settings({"AIRFLOW_HOME": str(tmp_path)})["api", "base_url"] == "http://old"
    (tmp_path / "airflow.cfg").write_text("no section = here")
    assert task_settings.read_site_settings(environ) == {("api", "base_url"): "http://environment"}
    assert task_settings.read_site_settings({"AIRFLOW_CONFIG": str(tmp_path / "none")}) == {}


@pytest.mark.parametrize(
    ("name", "central", "site", "combined"),
    [
        ("core.sensitive_var_conn_names", "recipe, dose", "dose,gate", "recipe,dose,gate"),
        ("core.sensitive_var_conn_names", "", "gate", "gate"),
        ("core.sensitive_var_conn_names", "recipe", "", "recipe"),
        ("core.hide_sensitive_var_conn_fields", "False", "True", "True"),
        ("core.hide_sensitive_var_conn_fields", "True", "False", "True"),
        ("core.hide_sensitive_var_conn_fields", "False", "off", "False"),
        ("logging.min_length_masked_secret", "8", "3", "3"),
        ("logging.min_length_masked_secret", "2", "5", "2"),
        ("logging.min_length_masked_secret", "2", "five", "five"),
    ],
)
def test_values_that_either_side_masks_are_masked(name: str, central: str, site: str, combined: str) -> None:
    section, option = name.split(".")
    assert list(task_settings.combined({name: central}, {(section, option): site}).values()) == [combined]


def test_passed_settings_are_applied_once_and_hidden_from_the_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "placeholder")  # so that it is restored
    monkeypatch.delenv("AIRFLOW__CORE__DEFAULT_TIMEZONE")
    monkeypatch.setenv(job_files.TASK_SETTINGS, json.dumps(TIMEZONE))
    task_settings.apply()
    assert os.environ["AIRFLOW__CORE__DEFAULT_TIMEZONE"] == "Europe/Berlin"
    assert job_files.TASK_SETTINGS not in os.environ
    task_settings.apply()
