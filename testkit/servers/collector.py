"""An OpenTelemetry collector for one test: receives OTLP over HTTP on a free port and stores the metrics."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest


@dataclass
class Series:
    """A metric: its kind in OTLP (`gauge`, `sum`, `exponential_histogram`), and its newest value by its tags."""

    kind: str
    values: dict[frozenset[tuple[str, str]], float] = field(default_factory=dict)


class Collector:
    """Receives metrics while its context is entered."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        """The received metrics, by name."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def environment(self) -> dict[str, str]:
        """Return the variables with which Airflow sends its metrics to this collector every second."""
        host, port = self._server.server_address[:2]
        return {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://{host!s}:{port}/v1/metrics",
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _receive(self, body: bytes) -> None:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = str(metric.WhichOneof("data"))
                    series = self.series.setdefault(metric.name, Series(kind))
                    for point in getattr(metric, kind).data_points:
                        tags = frozenset((tag.key, tag.value.string_value) for tag in point.attributes)
                        series.values[tags] = _value(point)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._receive(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Write no log."""

        return Handler


def _value(point: Any) -> float:
    """Return the value of a number, the sum of a histogram."""
    which = getattr(point, "WhichOneof", lambda name: None)
    try:
        return float(getattr(point, str(which("value"))))
    except (ValueError, TypeError):
        return float(point.sum)
