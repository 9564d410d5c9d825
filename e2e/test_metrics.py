"""Topic suite: an API server with StatsD or OpenTelemetry sends metrics of the calls and logs that it receives."""

import socket
from collections.abc import Callable, Mapping

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.collector import Collector


def _work(
    central: Airflow, new_worker: NewWorker, name: str, settings: Mapping[str, str], have_arrived: Callable[[], bool]
) -> None:
    """Run tasks on a worker of an API server with these settings until its metrics have arrived."""
    url = central.start_another_api_server(called=f"api-server-{name}", settings=settings)
    worker = new_worker(central, name, queues="sites", url=url)
    try:
        run = central.trigger("bundled")
        assert central.wait_for_run("bundled", run) == "success"
        wait_until(have_arrived, timeout_s=20, what="metrics of calls and logs have arrived")
    finally:
        worker.stop()
        central.stop_process(f"api-server-{name}")


def test_metrics_are_sent_to_statsd(central: Airflow, new_worker: NewWorker) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        port = str(server.getsockname()[1])
        settings = {"ON": "True", "HOST": "127.0.0.1", "PORT": port, "PREFIX": "plant"}
        names: set[str] = set()

        def have_arrived() -> bool:
            while True:
                try:
                    names.add(server.recv(4096).decode().partition(":")[0])
                except BlockingIOError:
                    return {"plant.remote.gateway.calls", "plant.remote.log.bytes"} <= names

        settings = {f"AIRFLOW__METRICS__STATSD_{name}": value for name, value in settings.items()}
        _work(central, new_worker, "statsd", settings, have_arrived)


def test_metrics_are_sent_to_opentelemetry(central: Airflow, new_worker: NewWorker) -> None:
    with Collector() as collector:

        def have_arrived() -> bool:
            return {"airflow.remote.gateway.calls", "airflow.remote.log.bytes"} <= set(collector.series)

        _work(central, new_worker, "otel", collector.environment(), have_arrived)
        assert collector.series["airflow.remote.log.bytes"].values[frozenset()] > 0
