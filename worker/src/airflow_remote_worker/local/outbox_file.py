"""The file `outbox` in a job directory: a task's writes that central has not received yet, in their order.

Only the shim writes it (`shim/outbox_writer.py`), and only the daemon reads it (`jobs/outbox_reader.py`), so each works while the
other is not running. A record is an 8-byte head (length and CRC-32, big-endian) and a :class:`~.frames.Call` as msgpack.
`outbox.done` holds the number of bytes that the daemon has delivered. The file only grows and is removed when the job is closed.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import msgspec

from airflow_remote_worker.local import frames

NAME = "outbox"
DONE = "outbox.done"
HEAD = struct.Struct(">II")


def record_of(call: frames.Call) -> bytes:
    """Return *call* as a record."""
    body = msgspec.msgpack.encode(call)
    return HEAD.pack(len(body), zlib.crc32(body)) + body


def delivered(directory: Path) -> int:
    """Return how many bytes the daemon has delivered; 0 if that is unknown: a write may be repeated, never lost."""
    try:
        return max(0, int((directory / DONE).read_bytes()))
    except (OSError, ValueError):
        return 0
