"""Hosts a task with the Task SDK's `supervise_task`, our coordinator and our transport."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import msgspec
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time.coordinator import get_coordinator_manager
from airflow.sdk.execution_time.supervisor import supervise_task

from airflow_remote_worker.local import job_files
from airflow_remote_worker.shim import compat, configuration
from airflow_remote_worker.shim.coordinator import RemoteCoordinator
from airflow_remote_worker.shim.daemon_client import DaemonClient
from airflow_remote_worker.shim.denials import DenialsToLog
from airflow_remote_worker.shim.last_call import StateLast
from airflow_remote_worker.shim.outbox_writer import OutboxWriter
from airflow_remote_worker.shim.transport import BASE_URL, GatewayTransport

SERVER_TERMINATED = "SERVER_TERMINATED"
"""The final state of a task that the supervisor ended because of the answer to a heartbeat, which is always a stop here."""


def host_task(job: job_files.JobSpec, gateway: DaemonClient, *, log: Path, outbox: OutboxWriter) -> job_files.Result:
    """Run the task's try; return how it ended. Its writes while central is unreachable go into *outbox*.

    Raises:
        Exception: it could not begin; nothing has run.
    """
    workload: dict[str, Any] = msgspec.json.decode(job.workload)
    ti = compat.task_instance_of(workload["ti"])
    bundle_name: str = workload["bundle"]["name"]
    queue = ti.queue or "default"
    configuration.name_host(job.worker_name)
    configuration.point_at_bundle(job.bundle_path, bundle_name=bundle_name)
    configuration.coordinate(queue)
    coordinator = get_coordinator_manager().for_queue(queue)
    assert isinstance(coordinator, RemoteCoordinator)
    denials = DenialsToLog(GatewayTransport(gateway, outbox, body_bytes=job.body_bytes), log)
    coordinator.gateway = gateway
    coordinator.last_call = StateLast(denials, denials.append)

    error = ""
    try:
        supervise_task(
            ti=ti,
            # Without the version: local bundles have none.
            bundle_info=compat.bundle_of(bundle_name),
            dag_rel_path=workload["dag_rel_path"],
            token="",
            client=Client(base_url=BASE_URL, token="", transport=coordinator.last_call),
            log_path=str(log),
        )
    except Exception as caught:  # an error of the supervisor, not of the task: a refused start, a failed last report
        traceback.print_exc()
        error = describe(caught)
    exit_code = 1 if coordinator.exit_code is None else int(coordinator.exit_code)
    terminated = coordinator.final_state == compat.server_terminated()
    stopped = gateway.stop is not None and (terminated or coordinator.exit_code is None)
    final_state = SERVER_TERMINATED if terminated else coordinator.final_state
    # Airflow reschedules a task whose Dag does not load; that is not the task's own end.
    has_ended_itself = (coordinator.has_reported_end or exit_code == 0) and final_state != "up_for_reschedule"
    begun: bool | None = gateway.has_called or has_ended_itself
    if not begun and (exit_code == 0 or not gateway.may_run):
        begun = None  # it is tried again, or central did not let it start: neither shows a fault of this machine
    return job_files.Result(exit_code=exit_code, final_state=final_state, stopped=stopped, error=error, begun=begun)


def describe(error: Exception) -> str:
    """Return *error* in one line, with the server's detail."""
    cause = error.__cause__ if getattr(error, "detail", None) is None else error
    detail = getattr(cause, "detail", None)
    return f"{type(error).__name__}: {error}" + (f" ({detail})" if detail else "")
