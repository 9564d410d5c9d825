"""Topic suite: central's settings reach sites; a remote task has the same settings and masks as on the LocalExecutor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

VALUES = {"plant_recipe": "seven-parts-of-clay", "plant_dose": "forty-drops-a-day", "plant_color": "burnt-umber"}


@pytest.fixture(scope="module", autouse=True)
def _variables(central: Airflow) -> None:
    for name, value in VALUES.items():
        central.api("POST", "variables", json={"key": name, "value": value})


@pytest.fixture(scope="module")
def site(central: Airflow, new_worker: NewWorker) -> Worker:
    """Return a worker whose site has its own settings."""
    own = {"AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "dose", "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Asia/Tokyo"}
    return new_worker(central, "settings", queues="settings", variables=own)


def test_a_remote_task_has_the_settings_and_masks_of_a_local_one(central: Airflow, worker: Worker) -> None:
    run = central.trigger("settings_here_and_there")
    assert central.wait_for_run("settings_here_and_there", run) == "success"
    here: dict[str, Any] = central.xcom("settings_here_and_there", run, "here")
    there: dict[str, Any] = central.xcom("settings_here_and_there", run, "there")

    assert here.pop("log_url") == there.pop("log_url").replace("/tasks/there", "/tasks/here")
    assert there == here
    assert here["base_url"] == central.url
    assert here["midnight"] == "2025-12-31T23:00:00+00:00", "central's time zone is that of Berlin"
    assert here["execution_timeout_s"] == 3000
    by_trigger = central.xcom("settings_here_and_there", run, "wait_there")
    assert by_trigger == {name: here[name] for name in by_trigger}
    for task_id in ("here", "there"):
        log = central.task_log("settings_here_and_there", run, task_id)
        assert VALUES["plant_recipe"] not in log and "the recipe is ***" in log
        assert VALUES["plant_dose"] in log and VALUES["plant_color"] in log


def test_the_sites_settings_take_precedence_and_the_masks_of_both_sides_apply(central: Airflow, site: Worker) -> None:
    run = central.trigger("settings_of_a_site")
    assert central.wait_for_run("settings_of_a_site", run) == "success"
    there: dict[str, Any] = central.xcom("settings_of_a_site", run, "there")
    assert there["midnight"] == "2025-12-31T15:00:00+00:00", "the site's time zone is that of Tokyo"
    assert there["base_url"] == central.url
    log = central.task_log("settings_of_a_site", run, "there")
    assert "the recipe is ***" in log and "the dose is ***" in log
    assert VALUES["plant_recipe"] not in log and VALUES["plant_dose"] not in log
    assert VALUES["plant_color"] in log


def test_a_change_reaches_new_jobs_and_does_not_affect_running_ones(central: Airflow, site: Worker, tmp_path: Path) -> None:
    run = central.trigger("settings_while_it_runs", {"directory": str(tmp_path)})
    wait_until((tmp_path / "pid").exists, timeout_s=60, what="the first job runs")
    process = psutil.Process(int((tmp_path / "pid").read_text()))
    central.stop_process("api-server")
    # It remains for the rest of the session: no other test checks owners.
    central.environment["AIRFLOW__OPERATORS__DEFAULT_OWNER"] = "the press"
    central.start_api_server()
    later = central.trigger("settings_of_a_site")
    assert central.wait_for_run("settings_of_a_site", later) == "success"
    assert central.xcom("settings_of_a_site", later, "there")["owner"] == "the press"
    assert process.is_running()
    (tmp_path / "go").touch()
    assert central.wait_for_run("settings_while_it_runs", run) == "success"
    assert central.xcom("settings_while_it_runs", run, "hold") == "airflow"
