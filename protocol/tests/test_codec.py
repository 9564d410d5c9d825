"""The codec: any bytes are either decoded to a message or refused as malformed."""

from __future__ import annotations

import pytest
from airflow_remote_protocol.codec import Malformed, decode, decode_problem, encode
from airflow_remote_protocol.errors import Problem, ProblemCode, make_problem
from airflow_remote_protocol.messages import Decline, HeldJob, Poll, Report

NOT_MESSAGES = {
    "nothing": b"",
    "not json": b"<html>",
    "a list": b"[]",
    "null": b"null",
    "a field missing": b"{}",
    "a wrong type": b'{"reason": 7}',
    "a text too long": b'{"reason": "' + b"x" * 2001 + b'"}',
    "trailing data": b'{"reason": "full"} {}',
    "cut": b'{"reason": "fu',
    "not utf-8": b'{"reason": "\xff"}',
    "an unpaired surrogate": b'{"reason": "\\ud800"}',
    "unclosed brackets in an unknown field": b'{"mood": ' + b"[" * 100_000,
    "closed brackets in an unknown field": b'{"reason": "full", "mood": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", NOT_MESSAGES.values(), ids=NOT_MESSAGES.keys())
def test_bytes_that_are_not_a_message_are_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match="not a valid Decline"):
        decode(Decline, body)


def test_the_error_names_the_field() -> None:
    with pytest.raises(Malformed, match=r"\$\.jobs\[0\]\.epoch"):
        decode(
            Poll,
            b'{"free_slots": 0, "intent_revision": 0, "wait_s": 0, "jobs": [{"job_id": "x", "epoch": "1", "phase": "ended"}]}',
        )


def test_a_message_survives_the_wire() -> None:
    poll = decode(Poll, b'{"free_slots": 3, "intent_revision": 7, "wait_s": 20, "jobs": []}')
    assert decode(Poll, encode(poll)) == poll


def test_unknown_fields_are_ignored() -> None:
    assert decode(Decline, b'{"reason": "full", "mood": {"of": ["the", "disk"]}}') == Decline(reason="full")


@pytest.mark.parametrize(
    ("kind", "body"),
    [(HeldJob, b'{"job_id": "a", "epoch": 1, "phase": "dreaming"}'), (Report, b'{"outcome": "vanished"}')],
)
def test_unknown_enum_values_are_refused(kind: type[HeldJob | Report], body: bytes) -> None:
    with pytest.raises(Malformed, match="Invalid enum value"):
        decode(kind, body)


def test_an_error_body_without_a_problem_decodes_to_nothing() -> None:
    assert decode_problem(b"<html>Bad Gateway</html>") is None
    assert decode_problem(b'{"detail": {"reason": "not_found"}}') is None


def test_a_problem_with_an_unknown_code_is_decoded() -> None:
    assert isinstance(decode_problem(b'{"code": "newer", "title": "Newer", "status": 499}'), Problem)
    assert decode_problem(encode(make_problem(ProblemCode.BUSY, "later"))) == make_problem(ProblemCode.BUSY, "later")
