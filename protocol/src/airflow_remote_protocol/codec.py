"""Encodes and decodes messages as JSON. Only this module turns bytes from the other end into types."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import msgspec

from airflow_remote_protocol.errors import Problem

T = TypeVar("T", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()


class Malformed(ValueError):
    """The bytes are not a valid message; the text names the field and the reason."""


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


def encode(message: msgspec.Struct) -> bytes:
    """Return *message* as JSON."""
    return _encoder.encode(message)


def decode(kind: type[T], body: bytes) -> T:
    """Return *body* decoded as *kind*.

    Raises:
        Malformed: not JSON, nested too deeply, or a field is missing, has a wrong type or an unknown enum value.
    """
    try:
        message: T = _decoder(kind).decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        # RecursionError: a hundred thousand brackets in a field that is ignored.
        raise Malformed(f"not a valid {kind.__name__}: {error}") from None
    return message


def decode_problem(body: bytes) -> Problem | None:
    """Return the problem in the body of an error; None if the body is not a problem."""
    try:
        return decode(Problem, body)
    except Malformed:
        return None
