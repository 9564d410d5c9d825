"""Debian's squid as a corporate proxy: login by name and password, CONNECT, a log of its tunnels; own port, no cache.

with Squid(user="plant", password="…") as squid:
    environment["HTTPS_PROXY"] = squid.url
    squid.targets()  # ["central.example:443", …]
"""

from __future__ import annotations

import subprocess

from testkit.processes import free_port, is_listening
from testkit.servers.debian import find_or_install
from testkit.servers.server import Server

CONFIG = """\
http_port 127.0.0.1:{port}
{login}
http_access deny all
cache deny all
cache_mem 1 MB
access_log stdio:{home}/access.log
cache_log {home}/cache.log
pid_filename {home}/squid.pid
coredump_dir {home}
visible_hostname proxy.test
shutdown_lifetime 1 second
read_timeout {idle_s} seconds
pinger_enable off
netdb_filename none
"""
LOGIN = """\
auth_param basic program {helper} {home}/passwords
auth_param basic children 1
auth_param basic realm proxy
acl known proxy_auth REQUIRED
http_access allow known"""
OPEN = "http_access allow localhost"


class Squid(Server):
    name = "squid"
    owner = "proxy"

    def __init__(self, *, user: str = "", password: str = "", idle_s: int = 900) -> None:
        """With a *user*, it requires a login; a tunnel that is silent for *idle_s* is cut."""
        super().__init__()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._user = user
        self._password = password
        self._idle_s = idle_s

    def start(self) -> Squid:
        program = find_or_install({"squid": "squid"})["squid"]
        home = self._make_home()
        login = LOGIN.format(helper="/usr/lib/squid/basic_ncsa_auth", home=home) if self._user else OPEN
        if self._user:
            hashed = subprocess.check_output(["openssl", "passwd", "-apr1", "-stdin"], input=self._password, text=True)
            (home / "passwords").write_text(f"{self._user}:{hashed.strip()}\n")
        config = home / "squid.conf"
        config.write_text(CONFIG.format(port=self.port, home=home, login=login, idle_s=self._idle_s))
        self._give_home_away()
        # Its own service name: the name of its shared memory is derived from it.
        self._launch([program, "-N", "-n", f"squid{self.port}", "-f", config])
        return self

    def targets(self) -> list[str]:
        """Return the targets of ended tunnels, oldest first; a refused one has its status: `host:port 407`."""
        assert self._home is not None
        log = self._home / "access.log"
        # time, duration, client, TAG/status, bytes, method, target, …
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        tunnels = [(line[6], line[3].rpartition("/")[2]) for line in lines if line[5] == "CONNECT"]
        return [target if status == "200" else f"{target} {status}" for target, status in tunnels]

    def _is_up(self) -> bool:
        return is_listening(self.port)
