"""Metrics in real Airflow: an API server with StatsD on tells of the calls and logs that it takes."""

import socket

from e2e.conftest import NewWorker
from testkit.airflow import Airflow
from testkit.processes import wait_until


def test_calls_and_logs_are_told_to_statsd(central: Airflow, new_worker: NewWorker) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        port = str(server.getsockname()[1])
        settings = {"ON": "True", "HOST": "127.0.0.1", "PORT": port, "PREFIX": "plant"}
        settings = {f"AIRFLOW__METRICS__STATSD_{name}": value for name, value in settings.items()}
        url = central.start_another_api_server(called="api-server-metrics", settings=settings)
        worker = new_worker(central, "measured", queues="sites", url=url)
        told: set[str] = set()

        def are_told() -> bool:
            while True:
                try:
                    told.add(server.recv(4096).decode().partition(":")[0])
                except BlockingIOError:
                    return {"plant.remote.gateway.calls", "plant.remote.log.bytes"} <= told

        try:
            run = central.trigger("bundled")
            assert central.wait_for_run("bundled", run) == "success"
            wait_until(are_told, timeout_s=20, what="StatsD hears of calls and logs")
        finally:
            worker.stop()
            central.stop_process("api-server-metrics")
