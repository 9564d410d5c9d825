"""What passes through the gateway with an Execution API call: which headers, and bodies of which size.

Both ends and the shim read these from here.
"""

from __future__ import annotations

CALL_HEADERS = ("airflow-api-version", "content-type", "correlation-id")
"""Headers of a call that central gets from the worker."""

ANSWER_HEADERS = ("content-type", "content-range", "correlation-id")
"""Headers of an answer that the task gets: all that the Task SDK's client reads, but `refreshed-api-token`, which never leaves
central. A test derives this list from the source of the installed SDK."""

OPTION = "[remote] gateway_body_bytes"
"""Central's option that bounds bodies. Central sends its value with the session, and all that a body passes obeys it."""

UNTOLD_BODY_BYTES = 32 * 1024 * 1024
"""What a central takes that does not send its limit (releases before 0.2)."""

MOST_BODY_BYTES = 1 << 30
"""What the option may be at most."""

ENVELOPE_BYTES = 64 * 1024
"""How much longer than the limit an answer may be: the Execution API puts a value into an object, which holds its key as well."""


def too_long(what: str, size: int, most: int) -> str:
    """Return the text of a refusal. *what* has *size* bytes, and *most* are allowed."""
    return f"{what} has {size} bytes; the limit is {most} bytes ({OPTION}): keep large values in a store and pass their address"
