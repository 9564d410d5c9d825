"""Debian's squid as a corporate proxy: a login by name and password, CONNECT, a log of what went through; own port, no cache.

with Squid(user="plant", password="…") as squid:
    environment["HTTPS_PROXY"] = squid.url
    squid.targets()  # ["central.example:443", …]
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from testkit.debian import install, server_owner
from testkit.processes import Process, clean_environment, free_port, wait_until

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


class Squid:
    """One proxy, started by `start()`, gone after `stop()`."""

    def __init__(self, *, user: str = "", password: str = "", idle_s: int = 900) -> None:
        """With a *user*, it wants a login; a tunnel that is silent for *idle_s* is cut."""
        # Not below pytest's directories: those are closed to whom the proxy runs as.
        self.home = Path(tempfile.mkdtemp(prefix="remote-squid-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._user = user
        self._password = password
        self._idle_s = idle_s
        self._process: Process | None = None

    def start(self) -> Squid:
        program = shutil.which("squid", path=_PATH) or _install()
        login = LOGIN.format(helper="/usr/lib/squid/basic_ncsa_auth", home=self.home) if self._user else OPEN
        if self._user:
            hashed = subprocess.check_output(["openssl", "passwd", "-apr1", "-stdin"], input=self._password, text=True)
            (self.home / "passwords").write_text(f"{self._user}:{hashed.strip()}\n")
        config = self.home / "squid.conf"
        config.write_text(CONFIG.format(port=self.port, home=self.home, login=login, idle_s=self._idle_s))
        owner = server_owner("proxy")
        if owner is not None:
            for path in (self.home, *self.home.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        # A service of its own: the name of its shared memory comes from that.
        command: list[str | Path] = [program, "-N", "-n", f"squid{self.port}", "-f", config]
        self._process = Process(
            "squid",
            command,
            log=self.home / "squid.out",
            env=clean_environment(),
            cwd=self.home,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
        )
        wait_until(self._answers, timeout_s=30, what="squid answers")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
        shutil.rmtree(self.home, ignore_errors=True)

    def targets(self) -> list[str]:
        """Return where tunnels that have ended led to, oldest first; a refused one is in it with its status: `host:port 407`."""
        log = self.home / "access.log"
        # time, duration, client, TAG/status, bytes, method, target, …
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        tunnels = [(line[6], line[3].rpartition("/")[2]) for line in lines if line[5] == "CONNECT"]
        return [target if status == "200" else f"{target} {status}" for target, status in tunnels]

    def __enter__(self) -> Squid:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _answers(self) -> bool:
        assert self._process is not None
        if not self._process.is_running():
            raise RuntimeError(f"squid ended at once\n{self._process.tail()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True


_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
"""Debian keeps servers where an ordinary user's PATH doesn't look."""


def _install() -> str:
    install("squid")
    found = shutil.which("squid", path=_PATH)
    if found is None:
        raise RuntimeError("apt-get installed squid, yet there is no such program")
    return found
