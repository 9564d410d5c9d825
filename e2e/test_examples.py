"""Topic suite: example Dags and documented forms run remotely with inferred grants; no access is denied."""

from __future__ import annotations

import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

EXAMPLES = (
    "example_bash_operator",
    "example_bash_decorator",
    "example_short_circuit_operator",
    "example_measurement_correction_operator",
    "example_sensor_decorator",
    "latest_only",
    "example_trigger_controller_dag",
    "example_xcom",
    "example_xcom_args",
    "example_dynamic_task_mapping",
    "asset_with_extra_by_yield",
)
"""The Dags of `dags/examples.py` that a test starts; one of them triggers the remaining one."""
A_MONDAY = "2026-06-01T00:00:00Z"
"""One of them needs a logical date that is not a Sunday."""


@pytest.fixture(scope="module")
def started(central: Airflow, worker: Worker) -> dict[str, str]:
    """Start the runs together and return them: most of their tasks don't depend on others."""
    for dag_id in EXAMPLES:
        central.wait_for_dag(dag_id)
    asked = {"logical_date": A_MONDAY, "conf": {}}
    return {dag_id: str(central.api("POST", f"dags/{dag_id}/dagRuns", json=asked)["dag_run_id"]) for dag_id in EXAMPLES}


@pytest.fixture(scope="module", autouse=True)
def _names(central: Airflow) -> None:
    central.api("POST", "variables", json={"key": "implied_limit", "value": "eleven"})
    central.api("POST", "variables", json={"key": "implied_secret", "value": "for the examples"})
    central.api("POST", "connections", json={"connection_id": "implied_bell", "conn_type": "http", "host": "bell.example"})


def test_documented_forms_get_what_they_name(central: Airflow, worker: Worker) -> None:
    source = central.trigger("implied_source")
    assert central.wait_for_run("implied_source", source) == "success"

    def runs() -> list[str]:
        return [run["dag_run_id"] for run in central.api("GET", "dags/implied/dagRuns")["dag_runs"]]

    (run,) = wait_until(runs, timeout_s=60, what="the asset's event has started the other Dag", every_s=0.3)
    assert central.wait_for_run("implied", run) == "success"
    assert central.xcom("implied", run, "see") == {"source": source, "pulled": "made at the site", "limit": "eleven"}
    assert [central.xcom("implied", run, name, "rang") for name in ("ask", "tell")] == ["bell.example"] * 2
    assert _denied(central, ["implied"]) == []


def test_a_top_level_read_that_can_not_be_inferred_fails_its_task_once(central: Airflow, worker: Worker) -> None:
    run = central.trigger("implied_by_nothing")
    assert central.wait_for_run("implied_by_nothing", run) == "failed"
    log = central.task_log("implied_by_nothing", run, "never").replace('\\"', '"')
    assert 'executor_config={"remote": {"variables": ["implied_secret"]}}' in log
    assert "The task is not rescheduled" in log
    assert [job["state"] for job in central.jobs(run)] == ["failed"], "one job, not one each minute"


def test_all_accesses_of_the_examples_are_inferred(central: Airflow, started: dict[str, str]) -> None:
    ended = {dag_id: central.wait_for_run(dag_id, run, timeout_s=240) for dag_id, run in started.items()}
    assert set(ended.values()) == {"success"}, ended
    assert _denied(central, [*EXAMPLES, "example_trigger_target_dag"]) == []
    rows = central.query("SELECT dag_id, run_id, task_id FROM task_instance WHERE state = 'success' AND executor IS NULL")
    assert [row for row in rows if started.get(row["dag_id"]) == row["run_id"]] == [], "all of them ran at the site"


def _denied(central: Airflow, dag_ids: list[str]) -> list[tuple[str, ...]]:
    rows = central.query("SELECT dag_id, task_id, kind, name, answer FROM remote_access")
    return [tuple(row.values()) for row in rows if row["dag_id"] in dag_ids and row["answer"] != "granted"]
