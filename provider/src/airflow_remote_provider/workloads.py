"""Converts Airflow's workloads to jobs: the data for the worker and the path of the log. No token, no path on central's disk."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from airflow_remote_protocol.messages import Bundle, CallbackWorkload, ConnectionTestWorkload, JobKind, TaskWorkload

from airflow_remote_provider.definitions.needs import encode_labels
from airflow_remote_provider.definitions.task_options import TaskOptions, parse
from airflow_remote_provider.ledger.jobs import NewJob

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecuteCallback, ExecuteTask, TestConnection

DEFAULT_QUEUE = "default"
PRIORITY_BEFORE_TASKS = 1_000_000
"""Priority of callbacks and connection tests: short, and a user may wait for them. Airflow's executors also run them first."""


@dataclass(frozen=True)
class JobDefaults:
    """Values for all jobs of one executor."""

    owner: str
    team: str | None
    lost_after_s: float
    """Unless the queue or the task sets another value."""
    lost_after_by_queue: Mapping[str, float] = field(default_factory=dict)
    """Values that administrators set for single queues, in seconds."""
    code_hashes: Mapping[uuid.UUID, str] = field(default_factory=dict)
    """Hashes of Dag files as they were parsed, by Dag version."""

    def lost_after(self, queue: str, options: TaskOptions | None = None) -> float:
        """Return how long the worker of a job may be silent: the value of the task, else of its queue, else of the deployment."""
        own = options.lost_after_s if options else None
        return own or self.lost_after_by_queue.get(queue) or self.lost_after_s


def make_task_job(item: ExecuteTask, defaults: JobDefaults) -> NewJob:
    """Return the job of one task try.

    Raises:
        BadTaskOption: its `executor_config` has an option that is unknown or invalid.
    """
    options = parse(item.ti.executor_config)
    ti = item.ti
    workload = TaskWorkload(
        ti=ti.model_dump(mode="json"),
        dag_rel_path=str(item.dag_rel_path),
        bundle=_bundle(item.bundle_info),
        code_hash=defaults.code_hashes.get(ti.dag_version_id, ""),
    )
    return NewJob(
        job_id=ti.external_executor_id or str(uuid.uuid4()),
        kind=JobKind.TASK,
        queue=ti.queue or DEFAULT_QUEUE,
        team=defaults.team,
        priority=ti.priority_weight,
        slots=ti.pool_slots,
        owner=defaults.owner,
        ti_id=ti.id,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
        try_number=ti.try_number,
        workload=_encode(workload),
        log_path=item.log_path or "",
        lost_after_s=defaults.lost_after(ti.queue or DEFAULT_QUEUE, options),
        labels=encode_labels(options.labels),
        bundle=item.bundle_info.name,
        bundle_version=item.bundle_info.version,
        dag_version=ti.dag_version_id,
        dag_file=workload.dag_rel_path,
    )


def make_callback_job(item: ExecuteCallback, defaults: JobDefaults, queue: str) -> NewJob:
    """Return the job of one callback of a Dag run."""
    callback = item.callback
    workload = CallbackWorkload(
        callback_id=callback.id,
        path=callback.data.get("path", ""),
        kwargs=item.model_dump(mode="json")["callback"]["data"].get("kwargs") or {},
        dag_rel_path=str(item.dag_rel_path),
        bundle=_bundle(item.bundle_info),
        kwargs_encoding=callback.data.get("kwargs_encoding"),
    )
    return _make_job_without_task(
        defaults,
        job_id=callback.id,
        kind=JobKind.CALLBACK,
        queue=queue,
        workload=_encode(workload),
        log_path=item.log_path or f"executor_callbacks/{callback.id}",
        dag_id=str(callback.data.get("dag_id") or ""),
        bundle=item.bundle_info.name,
        bundle_version=item.bundle_info.version,
        dag_file=workload.dag_rel_path,
    )


def make_connection_test_job(item: TestConnection, defaults: JobDefaults) -> NewJob:
    """Return the job that tests a connection from a worker of its queue."""
    workload = ConnectionTestWorkload(str(item.connection_test_id), item.connection_id, item.timeout)
    return _make_job_without_task(
        defaults,
        job_id=str(item.connection_test_id),
        kind=JobKind.CONNECTION_TEST,
        queue=item.queue or DEFAULT_QUEUE,
        workload=_encode(workload),
        log_path=f"connection_tests/{item.connection_test_id}.log",
        dag_id="",
    )


def make_key(kind: JobKind, job_id: str) -> Any:
    """Return Airflow's key for the job of a callback or a connection test."""
    from airflow.models.callback import CallbackKey
    from airflow.models.connection_test import ConnectionTestKey

    return CallbackKey(job_id) if kind is JobKind.CALLBACK else ConnectionTestKey(job_id)


def _make_job_without_task(defaults: JobDefaults, *, queue: str, **own: Any) -> NewJob:
    return NewJob(
        queue=queue,
        team=defaults.team,
        priority=PRIORITY_BEFORE_TASKS,
        slots=1,
        owner=defaults.owner,
        ti_id=None,
        run_id="",
        task_id="",
        map_index=-1,
        try_number=0,
        lost_after_s=defaults.lost_after(queue),
        **own,
    )


def _bundle(info: Any) -> Bundle:
    return Bundle(info.name, info.version)


def _encode(workload: msgspec.Struct) -> str:
    return msgspec.json.encode(workload).decode()
