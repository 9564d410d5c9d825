"""Which headers and how large bodies the gateway passes on with an Execution API call, for central, the worker and its shim."""

from __future__ import annotations

CALL_HEADERS = ("airflow-api-version", "content-type", "correlation-id")
"""Headers of a call that the worker sends to central."""

ANSWER_HEADERS = ("content-type", "content-range", "correlation-id")
"""Headers of an answer that the task receives: all that the Task SDK's client reads, except `refreshed-api-token`, which never
leaves central. A test derives this list from the source of the installed SDK."""

OPTION = "[remote] gateway_body_bytes"
"""Central's option that limits bodies. Central sends its value with the session, and every part of the path applies it."""

DEFAULT_BODY_BYTES = 32 * 1024 * 1024
"""The limit of a central that does not send one (releases before 0.2)."""

MAX_BODY_BYTES = 1 << 30
"""The largest value of the option."""

ENVELOPE_BYTES = 64 * 1024
"""How far an answer may exceed the limit: the Execution API returns a value in an object that also contains its key."""


def explain_too_large(what: str, *, size: int, most: int) -> str:
    """Return the error text for *what*, which has *size* bytes where *most* are allowed."""
    return f"{what} has {size} bytes; the limit is {most} bytes ({OPTION}): keep large values in a store and pass their address"
