"""Explains why this runtime can't host tasks. Its interpreter may be too old, or have only the standard library.

Uses nothing newer than Python 3.8, for the same reason as :mod:`.launch`.
"""

from __future__ import annotations

import os
import socket
import struct
import sys


def explain_import_error(error: ImportError) -> str:
    """Return a message for users with the cause of *error* and the remedy."""
    return (
        f"the runtime {sys.executable} can't import apache-airflow-task-sdk or what it needs ({error}): "
        "install requirements/runtime.lock into it, or set runtime.python to one that has it"
    )


def send_unable(control_fd: int, reason: str) -> None:
    """Send `frames.Unable`, encoded by hand: an interpreter that lacks Airflow lacks msgspec too."""
    body = b"\x82" + _text("type") + _text("unable") + _text("reason") + _text(reason)
    with socket.socket(fileno=os.dup(control_fd)) as control:
        control.sendall(struct.pack(">I", len(body)) + body)


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "replace")
    return b"\xdb" + struct.pack(">I", len(encoded)) + encoded
