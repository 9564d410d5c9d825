"""A temporary Redis server as CeleryExecutor's broker: own port, nothing on disk; nothing remains after `stop()`.

    with RedisServer(home) as redis:
        url = redis.url  # redis://127.0.0.1:…/0

Debian's package is installed if the program is missing and we are root.
"""

from __future__ import annotations

import socket
from pathlib import Path

from testkit.processes import free_port
from testkit.servers.debian import find_or_install
from testkit.servers.server import Server


class RedisServer(Server):
    name = "redis"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        program = find_or_install({"redis-server": "redis-server"})["redis-server"]
        home = self._make_home()
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(home)}
        self._launch([program, *(part for name, value in options.items() for part in (f"--{name}", value))])
        return self

    def _is_up(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
