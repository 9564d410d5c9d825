"""JSON to messages and back. The one place that turns bytes from the other side into types."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import msgspec

from airflow_remote_protocol.errors import Problem

T = TypeVar("T", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()


class Malformed(ValueError):
    """The bytes are not the message they should be; the text says which field and why."""


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


def encode(message: msgspec.Struct) -> bytes:
    """Return *message* as JSON."""
    return _encoder.encode(message)


def decode(kind: type[T], body: bytes) -> T:
    """Return *body* as a *kind*.

    Raises:
        Malformed: not JSON, nested too deeply, a field missing or of a wrong type, or an unknown meaning.
    """
    try:
        message: T = _decoder(kind).decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        # RecursionError: a hundred thousand brackets in a field that we would ignore.
        raise Malformed(f"not a valid {kind.__name__}: {error}") from None
    return message


def decode_problem(body: bytes) -> Problem | None:
    """Return the problem in an error's body, or None if it holds none."""
    try:
        return decode(Problem, body)
    except Malformed:
        return None
