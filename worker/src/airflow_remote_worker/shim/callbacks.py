"""Hosts a callback of a Dag run with the Task SDK's `supervise_callback` and a subprocess that reacts to the daemon.

A callback has no `run` call and no heartbeat. So the shim accepts the offer by a call of its own before anything runs, and the
supervisor's loop ends the process on a stop.
"""

from __future__ import annotations

import signal
import traceback
from pathlib import Path
from typing import Any

import attrs
import msgspec
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time import callback_supervisor
from airflow.sdk.execution_time.callback_supervisor import CallbackSubprocess, supervise_callback

from airflow_remote_worker.local import job_files
from airflow_remote_worker.shim import compat, configuration, own_code
from airflow_remote_worker.shim.coordinator import Watchful
from airflow_remote_worker.shim.daemon_client import DaemonClient
from airflow_remote_worker.shim.denials import DenialsToLog
from airflow_remote_worker.shim.transport import BASE_URL, GatewayTransport


def host_callback(job: job_files.JobSpec, gateway: DaemonClient, log: Path) -> job_files.Result:
    """Run the callback; return how it ended."""
    workload: dict[str, Any] = msgspec.json.decode(job.workload)
    bundle_name: str = workload["bundle"]["name"]
    configuration.name_host(job.worker_name)
    configuration.point_at_bundle(job.bundle_path, bundle_name=bundle_name)
    if refused := gateway.accept():
        return job_files.Result(exit_code=1, final_state="", stopped=True, error=refused)
    started: list[WatchfulCallback] = []

    class OurCallback(WatchfulCallback):
        """Adds our argument: `supervise_callback` uses a class by this name and does not pass it."""

        @classmethod
        def start(cls, **arguments: Any) -> WatchfulCallback:
            process: WatchfulCallback = WatchfulCallback.start(gateway=gateway, **arguments)
            started.append(process)
            return process

    callback_supervisor.CallbackSubprocess = OurCallback  # this process hosts only this job
    if job.signed:
        callback_supervisor.execute_callback = own_code.only(callback_supervisor.execute_callback, job.bundle_path)
    error = ""
    try:
        supervise_callback(
            id=workload["callback_id"],
            callback_path=workload["path"],
            callback_kwargs=workload["kwargs"],
            dag_rel_path=workload["dag_rel_path"],
            log_path=str(log),
            bundle_info=compat.bundle_of(bundle_name),
            client=Client(base_url=BASE_URL, token="", transport=DenialsToLog(GatewayTransport(gateway), log)),
            **compat.encoding_of_callback(workload.get("kwargs_encoding")),
        )
    except Exception as caught:
        traceback.print_exc()
        if not started or started[0]._exit_code in (None, 0):  # otherwise the error is in the log already
            error = f"{type(caught).__name__}: {caught}"
    code = started[0]._exit_code if started else None
    return job_files.Result(
        exit_code=1 if code is None else int(code),
        final_state="",
        stopped=gateway.stop is not None and code != 0,
        error=error or ("" if code == 0 else f"the callback {workload['path']} failed; see its log"),
    )


@attrs.define(kw_only=True)
class WatchfulCallback(Watchful, CallbackSubprocess):  # type: ignore[misc]
    """The supervisor's subprocess, which reacts at once to its child's exit and to the daemon."""

    gateway: DaemonClient

    def _service_subprocess(self, max_wait_time: float, **options: Any) -> int | None:
        code: int | None = super()._service_subprocess(max_wait_time, **options)
        self.gateway.drain()  # a callback has no heartbeat that would reconnect to a restarted daemon
        if code is None and self.gateway.stop is not None and not self._ending:
            self._ending = True
            self.kill(signal.SIGTERM, escalation_delay=5.0, force=True)
        return code

    _ending: bool = False
