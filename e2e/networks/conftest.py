"""Fixtures of a corporate network: a private authority, nginx in front of central, proxies, and one worker on each path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from testkit.authority import Authority
from testkit.processes import free_port
from testkit.servers.airflow import Airflow
from testkit.servers.mitmproxy import Mitmproxy
from testkit.servers.nginx import Nginx
from testkit.servers.squid import Squid
from testkit.worker import Worker

USER, PASSWORD = "plant", "p@ss:wörd/7"
CUT_S = 7
"""Squid cuts tunnels that are silent for this time."""
READ_TIMEOUT_S = 30
"""nginx's `proxy_read_timeout`; central's POLL_S is below it."""
POLL_S = 20
PATH = "/airflow"
SUBJECT_HEADER = "X-Client-Subject"


@pytest.fixture(scope="session")
def corp(home: Path) -> Authority:
    return Authority(home / "corp", "Corp Root CA")


@pytest.fixture(scope="session")
def inspecting(home: Path) -> Authority:
    return Authority(home / "inspecting", "Corp Inspect CA")


@pytest.fixture(scope="module")
def nginx(home: Path, central: Airflow, corp: Authority) -> Iterator[Nginx]:
    """Serve three sites: `plain`, `below-path` (an API server below a sub-path), `mutual` (requires a client certificate; its API
    server binds the worker to it)."""
    settings = {"AIRFLOW__API__BASE_URL": f"https://localhost{PATH}", "AIRFLOW__REMOTE__POLL_SECONDS": str(POLL_S)}
    below = central.start_another_api_server(called="api-server-below-path", settings=settings, path=PATH)
    settings = {"AIRFLOW__REMOTE__CLIENT_CERTIFICATE_HEADER": SUBJECT_HEADER}
    binding = central.start_another_api_server(called="api-server-binding", settings=settings)
    nginx = Nginx(home / "nginx", certificate=corp.issue("central", "localhost"))
    nginx.serve("plain", {"/": central.url})
    nginx.serve("below-path", {f"{PATH}/": below}, read_timeout_s=READ_TIMEOUT_S)
    nginx.serve("mutual", {"/": binding}, client_authority=corp.file, subject_header=SUBJECT_HEADER)
    with nginx:
        yield nginx
    central.stop_process("api-server-below-path")
    central.stop_process("api-server-binding")


@pytest.fixture(scope="module")
def squid() -> Iterator[Squid]:
    with Squid(user=USER, password=PASSWORD, idle_s=CUT_S) as squid:
        yield squid


@pytest.fixture(scope="module")
def mitmproxy(home: Path, corp: Authority, inspecting: Authority) -> Iterator[Mitmproxy]:
    with Mitmproxy(home / "mitmproxy", authority=inspecting, trusts=corp.file) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def workers(
    home: Path,
    central: Airflow,
    nginx: Nginx,
    squid: Squid,
    mitmproxy: Mitmproxy,
    corp: Authority,
    inspecting: Authority,
    new_worker: Callable[..., Worker],
) -> Iterator[Mapping[str, Worker]]:
    """Return the workers by the name of their path to central; only environment variables configure it."""
    login = home / "proxy-login"
    login.write_text(f"{USER}:{PASSWORD}\n")
    setting = "AIRFLOW_REMOTE_WORKER_"
    trust = {f"{setting}CA_FILE": str(corp.file)}
    ways: dict[str, tuple[str, dict[str, str]]] = {
        "proxied": (
            nginx.url("plain"),
            {**trust, "HTTPS_PROXY": squid.url, f"{setting}PROXY_AUTH_FILE": str(login)},
        ),
        # Stands for the authorities that a computer's system trusts.
        "inspected": (nginx.url("plain"), {"https_proxy": mitmproxy.url, "SSL_CERT_FILE": str(inspecting.file)}),
        "below-path": (f"{nginx.url('below-path')}{PATH}/", trust),
        "mutual": (nginx.url("mutual"), {**trust, f"{setting}CLIENT_CERT": str(corp.issue("plant-7"))}),
        "exempt": (
            nginx.url("plain"),
            {**trust, "HTTPS_PROXY": f"http://127.0.0.1:{free_port()}", "NO_PROXY": "example.com,localhost"},
        ),
    }
    workers = {
        way: new_worker(central, way, queues=way, slots=1, url=url, environment=environment, has_dags=False)
        for way, (url, environment) in ways.items()
    }
    yield workers
    for worker in workers.values():
        worker.stop()
