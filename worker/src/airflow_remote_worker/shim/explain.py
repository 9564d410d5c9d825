"""Say why this runtime can't host tasks: for an interpreter that may be too old, or lack everything but the standard library.

Nothing newer than Python 3.8 in here, for the same reason as in :mod:`.launch`.
"""

from __future__ import annotations

import os
import socket
import struct
import sys


def explain_import_error(error: ImportError) -> str:
    """Return what a person should do about *error*."""
    return (
        f"the runtime {sys.executable} can't import apache-airflow-task-sdk or what it needs ({error}): "
        "install requirements/runtime.lock into it, or set runtime.python to one that has it"
    )


def tell_unable(control_fd: int, reason: str) -> None:
    """Send `frames.Unable` written by hand: the interpreter that lacks Airflow lacks msgspec too."""
    body = b"\x82" + _text("type") + _text("unable") + _text("reason") + _text(reason)
    with socket.socket(fileno=os.dup(control_fd)) as control:
        control.sendall(struct.pack(">I", len(body)) + body)


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "replace")
    return b"\xdb" + struct.pack(">I", len(encoded)) + encoded
