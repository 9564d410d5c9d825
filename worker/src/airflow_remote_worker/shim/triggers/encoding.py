"""Encodes the end of a trigger: the protocol's `TriggerEvent` as JSON, with values encoded as the Task SDK encodes them.

The message is encoded by hand, and the daemon checks it.
"""

from __future__ import annotations

import json
import traceback
from typing import Any

from airflow_remote_worker.shim import compat

LONGEST_PART = 2000
MOST_PARTS = 200
MOST_XCOMS = 100
"""Bounds of the protocol's `TriggerEvent`."""
LONGEST_PAYLOAD = 1 << 20
"""Bytes of JSON: an event is stored in the task's row, which is not meant for large values."""


class BadEvent(Exception):
    """The yielded event cannot be sent; the text says why and what to do."""


def encode_event(event: Any, ti: Any) -> bytes:
    """Return the message for *event*, which the trigger of *ti* has yielded.

    Raises:
        BadEvent: it is not an event, cannot be serialised, or is too large.
    """
    from airflow.triggers.base import BaseTaskEndEvent, TriggerEvent

    if not isinstance(event, TriggerEvent):
        raise BadEvent(f"the trigger yielded {type(event).__name__!r}, not a TriggerEvent")
    if isinstance(event, BaseTaskEndEvent):
        message = {"kind": "ended", "state": str(event.task_instance_state.value), "xcoms": _encode_xcoms(event.xcoms, ti)}
    else:
        message = {"kind": "fired", "payload": _serialised(event.payload)}
    return _as_json(message)


def encode_failure(error: BaseException | None, explanation: str = "") -> bytes:
    """Return the message for a trigger that raised *error*, or that failed for the reason in *explanation*."""
    parts = [explanation] if explanation else []
    if error is not None:
        parts += traceback.format_exception(type(error), error, error.__traceback__)
    return json.dumps({"kind": "failed", "traceback": bounded([_masked(part) for part in parts])}).encode()


def bounded(parts: list[str]) -> list[str]:
    """Return *parts* cut to the protocol's bounds: the beginning, a mark for the missing part, and the end."""
    if len(parts) > MOST_PARTS:
        missing = len(parts) - MOST_PARTS + 1
        parts = [*parts[:50], f"… {missing} parts of the traceback are left out …\n", *parts[-(MOST_PARTS - 51) :]]
    return [part if len(part) <= LONGEST_PART else f"{part[:1000]}\n…\n{part[-900:]}" for part in parts]


def _encode_xcoms(xcoms: dict[str, Any] | None, ti: Any) -> dict[str, Any]:
    from airflow.sdk.execution_time.xcom import XCom

    if xcoms is not None and len(xcoms) > MOST_XCOMS:
        raise BadEvent(f"the event has {len(xcoms)} XComs; at most {MOST_XCOMS} are accepted")
    encoded = {}
    for key, value in (xcoms or {}).items():
        if not isinstance(key, str) or not 0 < len(key) <= 512:
            raise BadEvent(f"the event has an XCom with the key {str(key)[:100]!r}; a key has 1 to 512 characters")
        try:
            encoded[key] = XCom.serialize_value(
                value=value, key=key, task_id=ti.task_id, dag_id=ti.dag_id, run_id=ti.run_id, map_index=ti.map_index
            )
        except Exception as error:
            raise BadEvent(f"the XCom {key!r} of the event cannot be serialised: {type(error).__name__}: {error}") from error
    return encoded


def _serialised(payload: Any) -> Any:
    from airflow.sdk.serde import serialize

    try:
        return serialize(payload)
    except Exception as error:
        raise BadEvent(f"the event's payload cannot be serialised: {type(error).__name__}: {error}") from error


def _as_json(message: dict[str, Any]) -> bytes:
    try:
        # NaN and Infinity are not JSON, and databases reject them.
        encoded = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadEvent(f"the event cannot be written as JSON: {type(error).__name__}: {error}") from error
    if len(encoded) > LONGEST_PAYLOAD:
        raise BadEvent(
            f"the event has {len(encoded)} bytes of JSON; at most {LONGEST_PAYLOAD} are allowed: yield less, or an XCom"
        )
    return encoded


def _masked(text: str) -> str:
    return str(compat.redact(text))
