"""The cluster policy: the notes that it adds to tasks when their Dag file is parsed, and their presence on central."""

from __future__ import annotations

import json
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.executors.executor_loader import ExecutorLoader
from airflow.executors.executor_utils import ExecutorName
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow_remote_provider import compat, executor
from airflow_remote_provider.definitions import policies
from airflow_remote_provider.definitions.grants import Ask, GrantKind, declared, inferred
from airflow_remote_provider.definitions.grants.declared import NOTED

OURS = policies.EXECUTOR
LOCAL = ExecutorName("airflow.executors.local_executor.LocalExecutor", "LocalExecutor")
names_of_subclasses = compat.names_of_subclasses.__wrapped__  # not patched, and without a cache


class Derived(executor.RemoteExecutor):
    """A custom executor based on ours."""


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> set[str | None]:
    """Set the names by which tasks select our executor."""
    names: set[str | None] = {"RemoteExecutor"}
    monkeypatch.setattr(compat, "names_of_subclasses", lambda path: names)
    return names


def _ruled(task: Any) -> Any:
    policies.task_policy(task)
    return task.executor_config


def test_fields_lost_by_serialization_are_noted_and_kept() -> None:
    with DAG("dag", default_args={"executor": "RemoteExecutor"}) as dag:
        DockerOperator(task_id="one", image="x", docker_conn_id="registry", command="{{ var.value.v }}")
        DockerOperator.partial(task_id="many", image="x", docker_conn_id="registry").expand(command=["{{ conn.a }}"])
    for task in dag.tasks:
        policies.task_policy(task)
    read_back: Any = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert read_back.get_task("one").executor_config[NOTED] == {"connections": ["registry"], "variables": ["v"]}
    assert read_back.get_task("many").executor_config[NOTED] == {"connections": ["a", "registry"]}


def test_a_template_too_long_for_the_database_is_noted_to_its_end() -> None:
    with DAG("dag"):
        task = BashOperator(task_id="t", bash_command="#" * 5000 + "{{ conn.far.host }}", executor="RemoteExecutor")
    assert _ruled(task)[NOTED] == {"connections": ["far"]}


def test_other_keys_of_executor_config_stay_and_are_not_changed_in_place() -> None:
    config = {"remote": {"variables": ["x"]}, "pod_override": 1}
    with DAG("dag", default_args={"executor_config": config}):
        task = BashOperator(task_id="t", bash_command="{{ conn.a }}", executor="RemoteExecutor")
    assert _ruled(task) == {**config, NOTED: {"connections": ["a"]}}
    assert NOTED not in config


@pytest.mark.parametrize("executor_name", ["LocalExecutor", None])
def test_tasks_of_other_executors_are_not_changed(executor_name: str | None) -> None:
    with DAG("dag"):
        task = BashOperator(task_id="t", bash_command="{{ conn.a }}", executor=executor_name, executor_config={"remote": "odd"})
    assert _ruled(task) == {"remote": "odd"}


def test_tasks_without_an_executor_are_remote_if_ours_is_the_default(ours: set[str | None]) -> None:
    ours.add(None)
    with DAG("dag"):
        task = BashOperator(task_id="t", bash_command="{{ conn.a }}")
    assert NOTED in _ruled(task)


def test_a_task_that_names_nothing_gets_no_note() -> None:
    with DAG("dag"):
        task = BashOperator(task_id="t", bash_command="true", executor="RemoteExecutor")
    assert _ruled(task) == {}


def test_top_level_reads_are_noted_with_each_remote_task(tmp_path: Path) -> None:
    file = tmp_path / "d.py"
    file.write_text('LIMIT = Variable.get("limit")\nHOST = BaseHook.get_connection("plant").host')
    with DAG("dag", default_args={"executor": "RemoteExecutor"}) as dag:
        tasks = [BashOperator(task_id=name, bash_command="{{ conn.a }}") for name in "xy"]
    dag.fileloc = str(file)
    for task in tasks:
        assert _ruled(task)[NOTED] == {"connections": ["a"], "of_file": {"connections": ["plant"], "variables": ["limit"]}}
        granted = declared.noted(task.executor_config)
        assert all(granted.allows(Ask(GrantKind.CONNECTIONS, (name,))) for name in ("a", "plant"))
        assert granted.allows(Ask(GrantKind.VARIABLES, ("limit",)))
        assert not declared.noted_of_file(task.executor_config).allows(Ask(GrantKind.CONNECTIONS, ("a",)))


def test_a_file_in_a_zip_is_read_and_a_missing_file_does_not_prevent_loading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with zipfile.ZipFile(tmp_path / "dags.zip", "w") as archive:
        archive.writestr("d.py", 'Variable.get("limit")')
    with DAG("dag") as dag:
        task = BashOperator(task_id="t", bash_command="true", executor="RemoteExecutor")
    dag.fileloc = str(tmp_path / "gone.py")
    assert _ruled(task) == {}
    assert "gone.py can't be read" in caplog.text
    dag.fileloc = str(tmp_path / "dags.zip" / "d.py")
    assert _ruled(task)[NOTED] == {"of_file": {"variables": ["limit"]}}


def test_an_invalid_declaration_is_an_import_error() -> None:
    with DAG("dag"):
        task = BashOperator(
            task_id="t", bash_command="true", executor="RemoteExecutor", executor_config={"remote": {"connection": ["a"]}}
        )
    with pytest.raises(AirflowClusterPolicyViolation, match=r"task 't': .*did you mean 'connections'"):
        policies.task_policy(task)


def test_an_operator_that_breaks_inference_still_loads(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_task: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(inferred, "of_task", broken)
    with DAG("dag"):
        task = BashOperator(task_id="t", bash_command="{{ conn.a }}", executor="RemoteExecutor")
    assert _ruled(task) == {}
    assert "Could not infer what task t of Dag dag reads" in caplog.text


def test_airflow_loads_the_policy_and_it_recognises_the_executor() -> None:
    (point,) = entry_points(group="airflow.policy", name="remote")
    assert point.load() is policies
    assert f"{executor.RemoteExecutor.__module__}.{executor.RemoteExecutor.__qualname__}" == policies.EXECUTOR


def test_airflow_applies_the_policy_when_it_parses_a_dag_file(tmp_path: Path, ours: set[str | None]) -> None:
    ours.add(None)
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "d.py").write_text(
        "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.bash import BashOperator\n"
        "with DAG('parsed'):\n    BashOperator(task_id='t', bash_command='{{ conn.a }}')\n"
    )
    bag = DagBag(dag_folder=tmp_path, bundle_path=tmp_path)
    assert not bag.import_errors
    assert bag.dags["parsed"].get_task("t").executor_config[NOTED] == {"connections": ["a"]}


@pytest.mark.parametrize(
    ("configured", "names"),
    [
        ([LOCAL], set()),
        ([ExecutorName(OURS)], {OURS, "RemoteExecutor", None}),
        ([LOCAL, ExecutorName(OURS, "Edge")], {OURS, "RemoteExecutor", "Edge"}),
        ([LOCAL, ExecutorName(OURS, "Edge", "team")], {OURS, "RemoteExecutor", "Edge", None}),
        ([ExecutorName("not_installed_here.Executor"), ExecutorName(OURS)], {OURS, "RemoteExecutor"}),
        ([ExecutorName("site.executors.Derived")], {"site.executors.Derived", "Derived", None}),
    ],
)
def test_the_executor_is_recognised_by_all_its_names(
    configured: list[ExecutorName], names: set[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExecutorLoader, "get_executor_names", lambda validate_teams: configured)
    monkeypatch.setitem(sys.modules, "site.executors", SimpleNamespace(Derived=Derived))  # type: ignore[arg-type]
    assert names_of_subclasses(OURS) == names


def test_an_error_in_recognising_remote_tasks_does_not_affect_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> frozenset[str | None]:
        raise ValueError("[core] executor can't be read")

    monkeypatch.setattr(compat, "names_of_subclasses", broken)
    with DAG("dag"):
        local = BashOperator(task_id="local", bash_command="true", executor="LocalExecutor")
    policies.task_policy(local)
    assert local.executor_config == {}
