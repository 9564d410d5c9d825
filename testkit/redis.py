"""A Redis server of our own, as CeleryExecutor's broker: own port, nothing on disk; nothing survives `stop()`.

    with RedisServer(home) as redis:
        url = redis.url  # redis://127.0.0.1:…/0

Debian's package is installed if the program is missing and we are root.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from types import TracebackType

from testkit.debian import install
from testkit.processes import Process, clean_environment, free_port, wait_until


class RedisServer:
    """One server, started by `start()`, gone after `stop()`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> RedisServer:
        self.home.mkdir(parents=True, exist_ok=True)
        program = find_program() or install_program()
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(self.home)}
        command: list[str | Path] = [program, *(part for name, value in options.items() for part in (f"--{name}", value))]
        self._process = Process("redis", command, log=self.home / "redis.out", env=clean_environment(), cwd=self.home)
        wait_until(self._answers, timeout_s=30, what="Redis answers")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _answers(self) -> bool:
        assert self._process is not None
        if not self._process.is_running():
            raise RuntimeError(f"Redis ended at once\n{self._process.tail()}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def find_program() -> Path | None:
    found = shutil.which("redis-server")
    return Path(found) if found else None


def install_program() -> Path:
    """Install Debian's `redis-server` and return its program.

    Raises:
        RuntimeError: it can't be installed; a person has to.
    """
    install("redis-server")
    found = find_program()
    if found is None:
        raise RuntimeError("apt-get installed redis-server, yet there is no such program on PATH")
    return found
