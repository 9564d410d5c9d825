"""Sockets of this machine only: the local gateway's, which only this user may open, and the zygote's control socket."""

from __future__ import annotations

import socket
from pathlib import Path

import anyio
import anyio.abc


async def listen(path: Path) -> anyio.abc.SocketListener:
    """Listen at *path*, open to this user only; a socket that an earlier daemon left there is removed."""
    path.unlink(missing_ok=True)  # noqa: ASYNC240 -- a local file; the daemon is starting
    return await anyio.create_unix_listener(path, mode=0o600)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a stream that a child process can inherit."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
