"""Topic suite: what remote tasks can read, by their definitions, their declarations and their queue's policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.conftest import NewWorker
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


@pytest.fixture(scope="module", autouse=True)
def secrets(central: Airflow) -> None:
    """Create connections and variables, some of which no task has a grant for."""
    for name in ("granted_a", "granted_b", "granted_c", "withheld_plant", "site_7", "site_8"):
        central.api("POST", "connections", json={"connection_id": name, "conn_type": "http", "host": f"{name}.example"})
    for key, value in (("granted_text", "for all"), ("granted_json", '{"x": 1}'), ("withheld_text", "for nobody")):
        central.api("POST", "variables", json={"key": key, "value": value})


@pytest.fixture(scope="module")
def declared_run(central: Airflow, worker: Worker) -> str:
    run = central.trigger("grants_declared")
    assert central.wait_for_run("grants_declared", run) == "success"
    return run


def test_names_in_fields_and_templates_are_granted(central: Airflow, worker: Worker) -> None:
    run = central.trigger("grants_inferred")
    assert central.wait_for_run("grants_inferred", run) == "success"
    a, b, c = (f"granted_{name}.example" for name in "abc")
    assert central.xcom("grants_inferred", run, "fields") == [b, {"deep": [a, {"deeper": "1 for all"}]}]
    assert [central.xcom("grants_inferred", run, "mapped", map_index=index) for index in (0, 1)] == [[b, a], [b, c]]
    assert [central.xcom("grants_inferred", run, "passed_on", map_index=index) for index in (0, 1)] == [a, c]
    read = {
        (row["name"], row["task_id"], row["answer"]) for row in central.remote_cli("grants", "asked", "--dag", "grants_inferred")
    }
    assert {("granted_b", "fields", "granted"), ("granted_json", "fields", "granted"), ("granted_c", "mapped", "granted")} <= read
    assert {answer for _, _, answer in read} == {"granted"}


def test_declared_names_are_granted(central: Airflow, declared_run: str) -> None:
    text, keys = central.xcom("grants_declared", declared_run, "read_and_write")
    assert (text, sorted(keys)) == ("for all", ["granted_json", "granted_text"])


def test_other_accesses_are_denied_and_the_log_says_how_to_allow_them(central: Airflow, declared_run: str) -> None:
    run = central.trigger("grants_denied", {"run_id": declared_run})
    assert central.wait_for_run("grants_denied", run) == "success"

    def outcome_and_log(task: str) -> tuple[str, str]:
        return str(central.xcom("grants_denied", run, task)), central.task_log("grants_denied", run, task)

    for task, kind, name in [
        ("connection", "connections", "withheld_plant"),
        ("variable", "variables", "withheld_text"),
        ("listing", "variables", "*"),
        ("writing", "writes", "withheld_text"),
        ("xcom_of_another_dag", "xcoms_of", "grants_declared"),
        ("runs_of_another_dag", "dags", "grants_declared"),
    ]:
        got, log = outcome_and_log(task)
        assert got.endswith("Error") or got == "AirflowSecretsBackendAccessDenied", f"{task} got {got}"
        log = log.replace('\\"', '"').replace("\\'", "'")
        assert f'executor_config={{"remote": {{"{kind}": ["{name}"]}}}}' in log, log
        assert "airflow remote grants allow default --" in log
        assert "for nobody" not in log and "withheld_plant.example" not in log
    assert central.api("GET", "variables/withheld_text")["value"] == "for nobody"
    asked = central.remote_cli("grants", "asked", "--dag", "grants_denied", "--ungranted")
    assert {(row["kind"], row["answer"]) for row in asked} == {
        (kind, "denied") for kind in ("connections", "variables", "writes", "xcoms_of", "dags")
    }
    assert "for nobody" not in str(asked)


def test_denied_accesses_are_suggested_to_the_author(central: Airflow) -> None:
    suggested = central.remote_cli("grants", "suggest", "grants_denied")
    assert suggested["connection"] == {"connections": ["withheld_plant"]}
    assert 'executor_config={"remote": {"writes": ["withheld_text"]}}' in central.cli(
        "remote", "grants", "suggest", "grants_denied"
    )


def test_a_task_that_declares_other_dags_can_read_them(central: Airflow, declared_run: str) -> None:
    run = central.trigger("grants_across", {"run_id": declared_run})
    assert central.wait_for_run("grants_across", run) == "success"
    found, counted = central.xcom("grants_across", run, "look")
    assert found[0] == "for all" and counted is True


def test_the_triggerer_calls_no_class_that_a_worker_names(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    run = central.trigger("grants_rogue", {"touched": str(touched)})
    assert central.wait_for_run("grants_rogue", run) == "failed"
    assert central.query("SELECT count(*) AS n FROM trigger WHERE classpath LIKE '%Popen%'") == [{"n": 0}]
    assert not touched.exists()


def test_a_queues_policy_allows_globs_and_can_only_record_the_rest(central: Airflow, new_worker: NewWorker) -> None:
    new_worker(central, "watcher", queues="watched")
    central.cli("remote", "grants", "allow", "watched", "--connections", "site_*")
    central.cli("remote", "grants", "mode", "watched", "audit")
    run = central.trigger("grants_watched")
    assert central.wait_for_run("grants_watched", run) == "success"
    assert central.xcom("grants_watched", run, "read") == ["site_7.example", "withheld_plant.example", "for nobody"]
    asked = {row["name"]: row["answer"] for row in central.remote_cli("grants", "asked", "--dag", "grants_watched")}
    assert asked == {"site_7": "granted", "withheld_plant": "audited", "withheld_text": "audited"}
    assert central.remote_cli("grants", "suggest", "grants_watched") == {
        "read": {"connections": ["withheld_plant"], "variables": ["withheld_text"]}
    }
    central.remote_change("PUT", "policies", "watched", "mode", mode="enforce")
    run = central.trigger("grants_watched")
    assert central.wait_for_run("grants_watched", run) == "failed"
    assert "connection 'withheld_plant'" in central.task_log("grants_watched", run, "read")
