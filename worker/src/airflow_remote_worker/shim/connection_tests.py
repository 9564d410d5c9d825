"""Hosts a connection test: the Task SDK's `supervise_connection_test`, in this process, with our transport.

The connection is fetched through the gateway (central gives it out once), used in memory, masked in the log, and never written.
The test is bounded by its own timeout.
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
    """Try the connection and tell central the result; return how that ended."""
    workload: dict[str, Any] = msgspec.json.decode(job.workload)
    if job.run_as_user:
        raise PermissionError("a connection test runs in the worker's own process, so not where tasks are to run as another user")
    configuration.name_host(job.worker_name)
    if refused := gateway.accept():
        return job_files.Result(exit_code=1, final_state="", stopped=True, error=refused)
    transport = ConnectionTestTransport(gateway)

    def make_client(*, base_url: str, token: str) -> Client:
        return Client(base_url=base_url, token=token, transport=transport)

    connection_test_supervisor.Client = make_client  # in this process, which hosts this one job
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
        except Exception as caught:  # the result itself could not be told
            return job_files.Result(exit_code=1, final_state="", stopped=gateway.stop is not None, error=type(caught).__name__)
    return job_files.Result(exit_code=int(code), final_state=transport.told)


class ConnectionTestTransport(GatewayTransport):
    """Masks what comes in as a connection before anybody can log it; remembers what was told."""

    told = ""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.method == "GET" and request.url.path.endswith("/connection") and response.status_code == 200:
            _mask(json.loads(response.read()))
        elif request.method == "PATCH" and response.status_code < 300:
            self.told = str(json.loads(request.read()).get("state", ""))
        return response


def _mask(connection: dict[str, Any]) -> None:
    if connection.get("password"):
        mask_secret(connection["password"])
    if connection.get("extra"):
        try:
            mask_secret(json.loads(connection["extra"]))
        except ValueError:
            mask_secret(connection["extra"])
