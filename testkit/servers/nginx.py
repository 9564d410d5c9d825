"""Debian's nginx as the reverse proxy of central: TLS, buffering, timeouts, sub-paths, client certificates; own ports.

nginx = Nginx(home, certificate=authority.issue("central", "localhost"))
nginx.serve("plain", {"/": central.url})
with nginx:
    nginx.url("plain")  # https://localhost:…
    nginx.requests("plain")
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testkit.processes import free_port, is_listening
from testkit.servers.debian import find_or_install
from testkit.servers.server import Server

PASSED_ON = (
    "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; "
    "proxy_set_header X-Forwarded-Proto $scheme;"
)
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
    {passed_on}
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


class Nginx(Server):
    """One server with any number of sites, each on a port of its own."""

    name = "nginx"

    def __init__(self, home: Path, *, certificate: Path) -> None:
        """*certificate* also contains the key."""
        super().__init__(home)
        self.home = home
        self._certificate = certificate
        self._ports: dict[str, int] = {}
        self._servers: list[str] = []

    def serve(
        self,
        site: str,
        locations: Mapping[str, str],
        *,
        read_timeout_s: int = 60,
        client_authority: Path | None = None,
        subject_header: str = "",
    ) -> None:
        """Add a site before the start: each path of *locations* is passed to its URL, the path kept.

        With *client_authority*, clients need a certificate that it signed; nginx sends the subject in *subject_header*.
        """
        self._ports[site] = free_port()
        clients = f"ssl_client_certificate {client_authority}; ssl_verify_client on;" if client_authority else ""
        # A location that sets any header inherits none from the level above, so all are repeated.
        subject = f"{PASSED_ON} proxy_set_header {subject_header} $ssl_client_s_dn;" if subject_header else ""
        lines = [f"        location {path} {{ proxy_pass {url}; {subject} }}" for path, url in locations.items()]
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
        program = find_or_install({"nginx": "nginx"})["nginx"]
        config = self._make_home() / "nginx.conf"
        # As root its workers would run as `www-data`, which has no access to the temporary directories of tests.
        user = "user root;" if os.geteuid() == 0 else ""
        servers = "".join(self._servers)
        config.write_text(
            CONFIG.format(home=self.home, user=user, certificate=self._certificate, passed_on=PASSED_ON, servers=servers)
        )
        self._launch([program, "-e", self.home / "error.log", "-c", config])
        return self

    def requests(self, site: str) -> list[Request]:
        """Return the requests that the site has answered so far, oldest first."""
        log = self.home / f"{site}.log"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [Request(method, path, int(status), float(lasted)) for method, path, status, lasted in lines]

    def _is_up(self) -> bool:
        return all(is_listening(port) for port in self._ports.values())
