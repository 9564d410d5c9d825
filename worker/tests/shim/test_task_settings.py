from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from airflow_remote_worker.local import job_files
from airflow_remote_worker.shim import task_settings

TIMEZONE = {"core.default_timezone": "Europe/Berlin"}


def test_central_s_value_holds_where_the_site_has_none() -> None:
    assert task_settings.combined(TIMEZONE, {}) == {"AIRFLOW__CORE__DEFAULT_TIMEZONE": "Europe/Berlin"}


def test_the_site_s_own_value_holds_over_central_s() -> None:
    assert task_settings.combined(TIMEZONE, {("core", "default_timezone"): "Asia/Tokyo"}) == {}


def test_the_site_s_values_are_those_of_its_file_and_over_them_those_of_its_environment(tmp_path: Path) -> None:
    (tmp_path / "airflow.cfg").write_text(
        "[core]\n# default_timezone = utc\nDefault_Owner = %(x)s\n[API]\nbase_url = http://file\n"
    )
    environ = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__API__BASE_URL": "http://environment",
        "AIRFLOW__ODD": "1",
        "OTHER__A__B": "1",
    }
    assert task_settings.of_site(environ) == {("core", "default_owner"): "%(x)s", ("api", "base_url"): "http://environment"}
    (tmp_path / "airflow.cfg").write_text("[webserver]\nbase_url = http://old")
    assert task_settings.of_site({"AIRFLOW_HOME": str(tmp_path)})["api", "base_url"] == "http://old"
    (tmp_path / "airflow.cfg").write_text("no section = here")
    assert task_settings.of_site(environ) == {("api", "base_url"): "http://environment"}
    assert task_settings.of_site({"AIRFLOW_CONFIG": str(tmp_path / "none")}) == {}


@pytest.mark.parametrize(
    ("name", "central", "site", "combined"),
    [
        ("core.sensitive_var_conn_names", "recipe, dose", "dose,door", "recipe,dose,door"),
        ("core.sensitive_var_conn_names", "", "door", "door"),
        ("core.sensitive_var_conn_names", "recipe", "", "recipe"),
        ("core.hide_sensitive_var_conn_fields", "False", "True", "True"),
        ("core.hide_sensitive_var_conn_fields", "True", "False", "True"),
        ("core.hide_sensitive_var_conn_fields", "False", "off", "False"),
        ("logging.min_length_masked_secret", "8", "3", "3"),
        ("logging.min_length_masked_secret", "2", "5", "2"),
        ("logging.min_length_masked_secret", "2", "five", "five"),
    ],
)
def test_what_either_side_wants_masked_is_masked(name: str, central: str, site: str, combined: str) -> None:
    section, option = name.split(".")
    assert list(task_settings.combined({name: central}, {(section, option): site}).values()) == [combined]


def test_what_the_daemon_passed_is_taken_once_and_not_left_to_the_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "placeholder")  # so that it is restored
    monkeypatch.delenv("AIRFLOW__CORE__DEFAULT_TIMEZONE")
    monkeypatch.setenv(job_files.TASK_SETTINGS, json.dumps(TIMEZONE))
    task_settings.apply()
    assert os.environ["AIRFLOW__CORE__DEFAULT_TIMEZONE"] == "Europe/Berlin"
    assert job_files.TASK_SETTINGS not in os.environ
    task_settings.apply()
