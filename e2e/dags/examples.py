"""Example Dags of the installed packages, with their tasks at a site. Only tests start them."""

from __future__ import annotations

from importlib import import_module

from airflow.sdk import get_parsing_context
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.timetables.simple import NullTimetable

STANDARD, CORE = "airflow.providers.standard.example_dags", "airflow.example_dags"
EXAMPLES = {
    "example_bash_operator": f"{STANDARD}.example_bash_operator",
    "example_bash_decorator": f"{STANDARD}.example_bash_decorator",
    "example_short_circuit_operator": f"{STANDARD}.example_short_circuit_operator",
    "example_measurement_correction_operator": f"{STANDARD}.example_measurement_correction_operator",
    "example_sensor_decorator": f"{STANDARD}.example_sensor_decorator",
    "latest_only": f"{STANDARD}.example_latest_only",
    "example_trigger_controller_dag": f"{STANDARD}.example_trigger_controller_dag",
    "example_trigger_target_dag": f"{CORE}.example_trigger_target_dag",
    "example_xcom": f"{CORE}.example_xcom",
    "example_xcom_args": f"{CORE}.example_xcomargs",
    "example_dynamic_task_mapping": f"{CORE}.example_dynamic_task_mapping",
    "asset_with_extra_by_yield": f"{CORE}.example_outlet_event_extra",
}

wanted = get_parsing_context().dag_id
for dag_id, module in EXAMPLES.items():
    if wanted in (None, dag_id):
        import_module(module)

# Dags that an example does not assign to a name are only in Airflow's own list.
for dag, _ in DagContext.autoregistered_dags:
    dag.timetable = NullTimetable()
    for task in dag.tasks:
        options = getattr(task, "partial_kwargs", None)
        if options is None:
            task.executor = "RemoteExecutor"
        else:
            options["executor"] = "RemoteExecutor"
