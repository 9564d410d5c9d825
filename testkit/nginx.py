"""Debian's nginx as what stands in front of central: TLS, buffering, timeouts, sub-paths, client certificates; own ports.

nginx = Nginx(home, certificate=authority.issue("central", "localhost"))
nginx.serve("plain", {"/": central.url})
with nginx:
    nginx.url("plain")  # https://localhost:…
    nginx.requests("plain")
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from testkit.debian import install
from testkit.processes import Process, clean_environment, free_port, wait_until

CONFIG = """\
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
{user}
events {{ worker_connections 256; }}
http {{
    log_format short '$request_method $uri $status $request_time';
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_buffering on;
    proxy_request_buffering on;
    client_max_body_size 64m;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
{servers}
}}
"""
SERVER = """\
    server {{
        listen 127.0.0.1:{port} ssl;
        listen [::1]:{port} ssl;
        access_log {log} short;
        proxy_read_timeout {read_timeout_s}s;
        {clients}
{locations}
    }}
"""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    status: int
    lasted_s: float


class Nginx:
    """One server with any number of sites, each at a port of its own."""

    def __init__(self, home: Path, *, certificate: Path) -> None:
        """*certificate* holds the key as well."""
        self.home = home
        self._certificate = certificate
        self._ports: dict[str, int] = {}
        self._servers: list[str] = []
        self._process: Process | None = None

    def serve(
        self, site: str, locations: Mapping[str, str], *, read_timeout_s: int = 60, client_authority: Path | None = None
    ) -> None:
        """Add a site before the start: each path of *locations* leads to the URL behind it, the path kept.

        With *client_authority*, only to those who show a certificate that it signed.
        """
        self._ports[site] = free_port()
        clients = f"ssl_client_certificate {client_authority}; ssl_verify_client on;" if client_authority else ""
        lines = [f"        location {path} {{ proxy_pass {url}; }}" for path, url in locations.items()]
        self._servers.append(
            SERVER.format(
                port=self._ports[site],
                log=self.home / f"{site}.log",
                read_timeout_s=read_timeout_s,
                clients=clients,
                locations="\n".join(lines),
            )
        )

    def url(self, site: str, *, host: str = "localhost") -> str:
        return f"https://{host}:{self._ports[site]}"

    def port(self, site: str) -> int:
        return self._ports[site]

    def start(self) -> Nginx:
        self.home.mkdir(parents=True, exist_ok=True)
        program = shutil.which("nginx", path=_PATH) or _install()
        config = self.home / "nginx.conf"
        # Its workers would become `www-data`, whom temporary directories of tests are closed to.
        user = "user root;" if os.geteuid() == 0 else ""
        servers = "".join(self._servers)
        config.write_text(CONFIG.format(home=self.home, user=user, certificate=self._certificate, servers=servers))
        command: list[str | Path] = [program, "-e", self.home / "error.log", "-c", config]
        self._process = Process("nginx", command, log=self.home / "nginx.out", env=clean_environment(), cwd=self.home)
        wait_until(self._answers, timeout_s=30, what="nginx answers")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def requests(self, site: str) -> list[Request]:
        """Return what the site has answered so far, oldest first."""
        log = self.home / f"{site}.log"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [Request(method, path, int(status), float(lasted)) for method, path, status, lasted in lines]

    def __enter__(self) -> Nginx:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _answers(self) -> bool:
        assert self._process is not None
        if not self._process.is_running():
            raise RuntimeError(f"nginx ended at once\n{self._process.tail()}")
        try:
            for port in self._ports.values():
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return False
        return True


_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
"""Debian keeps servers where an ordinary user's PATH doesn't look."""


def _install() -> str:
    install("nginx")
    found = shutil.which("nginx", path=_PATH)
    if found is None:
        raise RuntimeError("apt-get installed nginx, yet there is no such program")
    return found
