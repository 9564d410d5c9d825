"""Airflow's workloads as jobs: what of each goes to a worker, and where its log goes. No token, no path on central's disk."""

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
BEFORE_TASKS = 1_000_000
"""Priority of what is no task: short, and somebody waits for it. Airflow's executors put it first, too."""


@dataclass(frozen=True)
class JobDefaults:
    """Who hands a job in and wants to hear its end."""

    owner: str
    team: str | None
    lost_after_s: float
    """Unless its queue or its task says otherwise."""
    of_queue: Mapping[str, float] = field(default_factory=dict)
    """What people decided for single queues instead."""
    code_hashes: Mapping[uuid.UUID, str] = field(default_factory=dict)
    """Of Dag files as they were parsed, by Dag version."""

    def lost_after(self, queue: str, options: TaskOptions | None = None) -> float:
        """Return how long the worker of a job may be silent: the task's word, else its queue's, else the deployment's."""
        own = options.lost_after_s if options else None
        return own or self.of_queue.get(queue) or self.lost_after_s


def task_job(item: ExecuteTask, to: JobDefaults) -> NewJob:
    """Return the job of one task try.

    Raises:
        BadTaskOption: its `executor_config` asks for what can't be given.
    """
    options = parse(item.ti.executor_config)
    ti = item.ti
    said = TaskWorkload(
        ti=ti.model_dump(mode="json"),
        dag_rel_path=str(item.dag_rel_path),
        bundle=_bundle(item.bundle_info),
        code_hash=to.code_hashes.get(ti.dag_version_id, ""),
    )
    return NewJob(
        job_id=ti.external_executor_id or str(uuid.uuid4()),
        kind=JobKind.TASK,
        queue=ti.queue or DEFAULT_QUEUE,
        team=to.team,
        priority=ti.priority_weight,
        slots=ti.pool_slots,
        owner=to.owner,
        ti_id=ti.id,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
        try_number=ti.try_number,
        workload=_json(said),
        log_path=item.log_path or "",
        lost_after_s=to.lost_after(ti.queue or DEFAULT_QUEUE, options),
        labels=encode_labels(options.labels),
        bundle=item.bundle_info.name,
    )


def callback_job(item: ExecuteCallback, to: JobDefaults, queue: str) -> NewJob:
    """Return the job of one callback of a Dag run."""
    callback = item.callback
    said = CallbackWorkload(
        callback_id=callback.id,
        path=callback.data.get("path", ""),
        kwargs=item.model_dump(mode="json")["callback"]["data"].get("kwargs") or {},
        dag_rel_path=str(item.dag_rel_path),
        bundle=_bundle(item.bundle_info),
        kwargs_encoding=callback.data.get("kwargs_encoding"),
    )
    return _without_task(
        to,
        job_id=callback.id,
        kind=JobKind.CALLBACK,
        queue=queue,
        workload=_json(said),
        log_path=item.log_path or f"executor_callbacks/{callback.id}",
        dag_id=str(callback.data.get("dag_id") or ""),
        bundle=item.bundle_info.name,
    )


def connection_test_job(item: TestConnection, to: JobDefaults) -> NewJob:
    """Return the job that tries a connection from where its queue's workers stand."""
    said = ConnectionTestWorkload(str(item.connection_test_id), item.connection_id, item.timeout)
    return _without_task(
        to,
        job_id=str(item.connection_test_id),
        kind=JobKind.CONNECTION_TEST,
        queue=item.queue or DEFAULT_QUEUE,
        workload=_json(said),
        log_path=f"connection_tests/{item.connection_test_id}.log",
        dag_id="",
    )


def key_of(kind: JobKind, job_id: str) -> Any:
    """Return Airflow's key for a job that is no task."""
    from airflow.models.callback import CallbackKey
    from airflow.models.connection_test import ConnectionTestKey

    return CallbackKey(job_id) if kind is JobKind.CALLBACK else ConnectionTestKey(job_id)


def _without_task(to: JobDefaults, *, queue: str, **own: Any) -> NewJob:
    return NewJob(
        queue=queue,
        team=to.team,
        priority=BEFORE_TASKS,
        slots=1,
        owner=to.owner,
        ti_id=None,
        run_id="",
        task_id="",
        map_index=-1,
        try_number=0,
        lost_after_s=to.lost_after(queue),
        **own,
    )


def _bundle(info: Any) -> Bundle:
    return Bundle(info.name, info.version)


def _json(said: msgspec.Struct) -> str:
    return msgspec.json.encode(said).decode()
