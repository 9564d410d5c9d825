"""Our cluster policy, which Airflow runs wherever a Dag file is parsed: it notes the names in definitions of remote tasks.

A serialized task has lost every field that is not a template (`DockerOperator.docker_conn_id`), its notifiers, and the end of
long templates. So the names are noted in `executor_config`, which is kept. A declaration that can't be read is an import error.

The policy also lets the worker defer tasks with `start_from_trigger`; the scheduler would hand them to central's triggerer.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.policies import hookimpl

from airflow_remote_provider.faults import Faults

log = logging.getLogger(__name__)
faults = Faults(log, "The cluster policy of the Remote Executor")

EXECUTOR = "airflow_remote_provider.executor.RemoteExecutor"
"""As a text, because a process that parses one Dag file does not need the module."""


@hookimpl  # type: ignore[untyped-decorator]
def task_policy(task: Any) -> None:
    """Note the names that a remote task's definition contains. Called for every task of every Dag file.

    Tasks of other executors are not changed.

    Raises:
        AirflowClusterPolicyViolation: the task's `executor_config["remote"]` can't be read.
    """
    if not _is_remote(task):
        return
    from airflow_remote_provider import compat

    compat.start_on_worker(task)
    from airflow_remote_provider.definitions.grants import inferred
    from airflow_remote_provider.definitions.grants.declared import NOTED, OF_FILE
    from airflow_remote_provider.definitions.task_options import BadTaskOption, parse

    try:
        parse(task.executor_config)
    except BadTaskOption as error:
        raise compat.policy_violation(f"task {task.task_id!r}: {error}") from None
    try:
        names = inferred.of_task(task)
    except Exception:
        # An operator behaves in an unexpected way. Its Dag must load; what isn't noted is denied, with a message in the task log.
        log.exception("Could not infer what task %s of Dag %s reads; it needs declarations", task.task_id, task.dag_id)
        return
    noted: dict[str, Any] = {kind.value: sorted(some) for kind, some in names.items()}
    if of_file := _of_file(task):
        noted[OF_FILE] = of_file
    if noted:
        compat.set_executor_config(task, {**(task.executor_config or {}), NOTED: noted})


def _of_file(task: Any) -> dict[str, list[str]]:
    """Return the names that the task's Dag file reads when it is loaded, by kind."""
    from airflow_remote_provider import compat
    from airflow_remote_provider.definitions.grants import top_level

    path = getattr(getattr(task, "dag", None), "fileloc", None)
    if not path:
        return {}
    try:
        names = top_level.of_source(compat.source_of_dag_file(path))
    except (OSError, UnicodeDecodeError) as error:
        log.warning("%s can't be read (%s); what it reads at its top level must be declared for its remote tasks", path, error)
        return {}
    return {kind.value: sorted(some) for kind, some in names.items()}


def _is_remote(task: Any) -> bool:
    """Return whether the task runs on our executor. If that can't be determined, Dag files of other executors must still load."""
    try:
        from airflow_remote_provider import compat

        return task.executor in compat.names_of_subclasses(EXECUTOR)
    except Exception as error:
        faults.report_single_failure("tell which tasks are remote", error)
        return bool(task.executor) and str(task.executor).endswith("RemoteExecutor")
