"""Hosts a connection test with the Task SDK's `supervise_connection_test` in this process, and our transport.

The connection is fetched through the gateway (central returns it once), used in memory, masked in the log, and never written to
disk. The test has its own timeout.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import msgspec
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time import connection_test_supervisor
from airflow.sdk.execution_time.connection_test_supervisor import supervise_connection_test
from airflow.sdk.log import configure_logging

from airflow_remote_worker.local import job_files
from airflow_remote_worker.shim import configuration, lossy
from airflow_remote_worker.shim.compat import httpx, mask_secret
from airflow_remote_worker.shim.daemon_client import DaemonClient
from airflow_remote_worker.shim.transport import BASE_URL, GatewayTransport


def host_connection_test(job: job_files.JobSpec, gateway: DaemonClient, log: Path) -> job_files.Result:
    """Test the connection and report the result to central; return how that ended."""
    workload: dict[str, Any] = msgspec.json.decode(job.workload)
    if job.run_as_user:
        raise PermissionError("a connection test runs as the worker's own user, so not on queues whose tasks run as another user")
    configuration.name_host(job.worker_name)
    if refused := gateway.accept():
        return job_files.Result(exit_code=1, final_state="", stopped=True, error=refused)
    transport = ConnectionTestTransport(gateway)

    def make_client(*, base_url: str, token: str) -> Client:
        return Client(base_url=base_url, token=token, transport=transport)

    connection_test_supervisor.Client = make_client  # this process hosts only this job
    with lossy.opened(log) as stream:
        configure_logging(output=stream, json_output=True)
        try:
            code = supervise_connection_test(
                connection_test_id=uuid.UUID(workload["connection_test_id"]),
                connection_id=workload["connection_id"],
                timeout=workload["timeout_s"],
                token="",
                server=BASE_URL,
            )
        except Exception as caught:  # the result could not be reported
            return job_files.Result(exit_code=1, final_state="", stopped=gateway.stop is not None, error=type(caught).__name__)
    return job_files.Result(exit_code=int(code), final_state=transport.reported_state)


class ConnectionTestTransport(GatewayTransport):
    """Masks the secrets of a received connection before they can be logged; remembers the reported state."""

    reported_state = ""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.method == "GET" and request.url.path.endswith("/connection") and response.status_code == 200:
            _mask(json.loads(response.read()))
        elif request.method == "PATCH" and response.status_code < 300:
            self.reported_state = str(json.loads(request.read()).get("state", ""))
        return response


def _mask(connection: dict[str, Any]) -> None:
    if connection.get("password"):
        mask_secret(connection["password"])
    if connection.get("extra"):
        try:
            mask_secret(json.loads(connection["extra"]))
        except ValueError:
            mask_secret(connection["extra"])
