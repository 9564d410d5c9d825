"""Definitions of tasks: as a Dag file builds them, and as the database keeps them."""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session


def policy_violation(text: str) -> Exception:
    """Return the exception with which a cluster policy refuses a Dag; *text* is shown as its import error."""
    from airflow.exceptions import AirflowClusterPolicyViolation

    return AirflowClusterPolicyViolation(text)  # type: ignore[no-any-return]


def set_executor_config(task: Any, config: dict[str, Any]) -> None:
    """Replace the `executor_config` of a task of a Dag file."""
    if hasattr(task, "partial_kwargs"):
        task.partial_kwargs["executor_config"] = config
    else:
        task.executor_config = config


def source_of_dag_file(path: str) -> str:
    """Return the text of a Dag file, which may be in a zip.

    Raises:
        OSError, UnicodeDecodeError: it can't be read.
    """
    from airflow.utils.file import open_maybe_zipped

    with open_maybe_zipped(path) as file:
        text = file.read()
    return text.decode() if isinstance(text, bytes) else str(text)


def start_on_worker(task: Any) -> None:
    """Make a task of a Dag file that would start in the triggerer start on its worker, which then defers it."""
    if not getattr(task, "start_from_trigger", False):
        return
    task.start_from_trigger = False
    if hasattr(task, "partial_kwargs"):
        task.partial_kwargs["start_from_trigger"] = False


@cache
def dag_bag() -> Any:
    """Return this process's bag of Dags read from the database, by version; it drops those that were not used for long."""
    from airflow.api_fastapi.common.dagbag import create_dag_bag

    return create_dag_bag()


def task_definition(session: Session, dag_version_id: UUID, task_id: str) -> Any:
    """Return the serialized task of that version of its Dag, mapped or not; None if it no longer exists."""
    dag = dag_bag().get_dag(version_id=dag_version_id, session=session)
    return None if dag is None else dag.task_dict.get(task_id)


def downstream_of(task: Any) -> frozenset[str]:
    """Return the ids of all tasks that are downstream of this serialized task, directly or through others."""
    return frozenset(task.get_flat_relative_ids(upstream=False))


def are_mapped_together(task: Any, other_id: str) -> bool:
    """Return whether this serialized task and another one of its Dag are in the same mapped task group."""
    groups = {group.group_id for group in task.iter_mapped_task_groups()}
    return any(group.group_id in groups for group in task.dag.task_dict[other_id].iter_mapped_task_groups())


def newest_definitions(session: Session, dag_id: str) -> dict[str, Any]:
    """Return the serialized tasks of the newest version of the Dag, by task id; empty if the Dag does not exist."""
    dag = dag_bag().get_latest_version_of_dag(dag_id, session=session)
    return {} if dag is None else dict(dag.task_dict)
