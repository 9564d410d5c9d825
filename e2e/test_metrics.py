"""Metrics in real Airflow: an API server with StatsD, or with OpenTelemetry, tells of the calls and logs that it takes."""

import socket
from collections.abc import Callable, Mapping

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.collector import Collector


def _work(central: Airflow, new_worker: NewWorker, name: str, settings: Mapping[str, str], are_told: Callable[[], bool]) -> None:
    """Run tasks on a worker of an API server with these settings, until it has told of them."""
    url = central.start_another_api_server(called=f"api-server-{name}", settings=settings)
    worker = new_worker(central, name, queues="sites", url=url)
    try:
        run = central.trigger("bundled")
        assert central.wait_for_run("bundled", run) == "success"
        wait_until(are_told, timeout_s=20, what="calls and logs are told")
    finally:
        worker.stop()
        central.stop_process(f"api-server-{name}")


def test_calls_and_logs_are_told_to_statsd(central: Airflow, new_worker: NewWorker) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        port = str(server.getsockname()[1])
        settings = {"ON": "True", "HOST": "127.0.0.1", "PORT": port, "PREFIX": "plant"}
        told: set[str] = set()

        def are_told() -> bool:
            while True:
                try:
                    told.add(server.recv(4096).decode().partition(":")[0])
                except BlockingIOError:
                    return {"plant.remote.gateway.calls", "plant.remote.log.bytes"} <= told

        settings = {f"AIRFLOW__METRICS__STATSD_{name}": value for name, value in settings.items()}
        _work(central, new_worker, "statsd", settings, are_told)


def test_calls_and_logs_are_told_to_opentelemetry(central: Airflow, new_worker: NewWorker) -> None:
    with Collector() as collector:

        def are_told() -> bool:
            return {"airflow.remote.gateway.calls", "airflow.remote.log.bytes"} <= set(collector.told)

        _work(central, new_worker, "otel", collector.environment(), are_told)
        assert collector.told["airflow.remote.log.bytes"].values[frozenset()] > 0
