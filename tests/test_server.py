"""Tests testkit/servers/server.py: how every server of the test kit starts, fails and ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from testkit.processes import free_port, is_listening
from testkit.servers.server import Server

LISTEN = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("up", flush=True)
while True:
    server.accept()
"""


class Listener(Server):
    name = "listener"

    def __init__(self, home: Path | None = None, *, program: str = LISTEN) -> None:
        super().__init__(home)
        self.port = free_port()
        self.program = program

    def start(self) -> Listener:
        self.own_home = self._make_home()
        self._launch([sys.executable, "-c", self.program, str(self.port)])
        return self

    def _is_up(self) -> bool:
        return is_listening(self.port)


def test_a_started_server_is_up_and_a_stopped_one_is_gone_with_its_directory() -> None:
    with Listener() as server:
        assert is_listening(server.port)
        assert (server.own_home / "listener.out").read_text() == "up\n"
        pid = server.pid
    assert not is_listening(server.port) and not server.own_home.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_given_directory_stays_and_the_server_can_start_in_it_again(tmp_path: Path) -> None:
    server = Listener(tmp_path / "made")
    for _ in range(2):
        with server:
            assert is_listening(server.port)
    assert (tmp_path / "made/listener.out").read_text() == "up\nup\n"


def test_a_started_server_is_not_started_again() -> None:
    server = Listener().start()
    with server as same:
        assert same is server
    assert not is_listening(server.port)


def test_a_server_that_ends_at_once_shows_its_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"listener ended at once\n.*\n.*no such thing"):
        Listener(tmp_path, program="import sys; sys.exit('no such thing')").start()
