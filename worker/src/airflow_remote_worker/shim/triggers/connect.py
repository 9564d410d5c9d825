"""Connects a trigger host to the daemon: directly, or through a parent process that stays root.

With `run_as_user` the host can't open the daemon's socket or read its files. A small parent process stays root, connects, and
passes the connected descriptor over a socket pair. It does nothing else, and runs no user code.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from airflow_remote_worker.shim import posix

CONNECT_TIMEOUT_S = 0.5
"""A unix socket accepts at once, unless its backlog is full."""
_ASK = b"?"
_ANSWER = struct.Struct("!cd")
"""`+` with a descriptor, or `-`; then the time of the last contact with central, as stored by the daemon."""
_PR_SET_PDEATHSIG = 1


class Connector(Protocol):
    """Makes connections to the daemon."""

    contact_at: float
    """The time of the last contact with central, as stored by the daemon and read at the last attempt; 0: unknown."""

    async def connect(self) -> socket.socket:
        """Return a connected socket.

        Raises:
            OSError: the daemon can't be reached.
        """
        ...


class DirectConnector:
    """Connects to the daemon's socket itself."""

    def __init__(self, *, socket_path: str, contact_path: str) -> None:
        self.contact_at = 0.0
        self._socket_path = socket_path
        self._contact_path = contact_path

    async def connect(self) -> socket.socket:
        self.contact_at = read_contact(self._contact_path) or self.contact_at
        return _connect(self._socket_path)


class ParentConnector:
    """Requests connections from the parent at the other end of *pair*."""

    def __init__(self, pair: socket.socket) -> None:
        self.contact_at = 0.0
        self._pair = pair
        pair.setblocking(False)

    async def connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._pair, _ASK)
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._pair, _settle, readable)
        try:
            await readable
        finally:
            loop.remove_reader(self._pair)
        # The parent writes an answer in one piece.
        answer, descriptors, _, _ = socket.recv_fds(self._pair, _ANSWER.size, 1)
        if len(answer) < _ANSWER.size:
            # Without its parent the host can't reach the daemon again, and nothing watches it.
            os._exit(1)
        sign, contact_at = _ANSWER.unpack(answer)
        self.contact_at = contact_at or self.contact_at
        if sign != b"+":
            raise ConnectionRefusedError("the daemon can't be reached")
        return socket.socket(fileno=descriptors[0])


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def serve_connections(pair: socket.socket, *, socket_path: str, contact_path: str) -> None:
    """In the parent: connect whenever the child at the other end of *pair* requests it, until the child has exited."""
    with pair:
        while True:
            try:
                if not pair.recv(1):
                    return
                contact_at = read_contact(contact_path)
                try:
                    with _connect(socket_path) as connected:
                        socket.send_fds(pair, [_ANSWER.pack(b"+", contact_at)], [connected.fileno()])
                except (ConnectionError, FileNotFoundError, TimeoutError, BlockingIOError):
                    pair.sendall(_ANSWER.pack(b"-", contact_at))
            except OSError:
                return


def end_with_parent() -> None:
    """In the child: die with the parent (on Linux; elsewhere the next attempt to connect notices its death)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def close_all_but(kept: set[int]) -> None:
    """Close every inherited descriptor except *kept*: user code must not have them."""
    try:
        descriptors = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    except OSError:  # macOS
        descriptors = [int(path.name) for path in Path("/dev/fd").iterdir()]
    for descriptor in descriptors:
        if descriptor not in kept:
            with suppress(OSError):
                os.close(descriptor)


def read_contact(path: str) -> float:
    """Return the time of the last contact that the daemon has stored; 0 if it can't be read."""
    try:
        return float(Path(path).read_text()) if path else 0.0
    except (OSError, ValueError):
        return 0.0


def _connect(path: str) -> socket.socket:
    connected = posix.connect(path, timeout_s=CONNECT_TIMEOUT_S)
    connected.setblocking(False)
    return connected
