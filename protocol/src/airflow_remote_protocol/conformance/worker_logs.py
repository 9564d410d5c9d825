"""A worker's own log arrives in stretches, each in order and once."""

from __future__ import annotations

import gzip

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.central import CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import LogAppended

MAX_WORKER_LOG = 1 << 20
"""docs/protocol.md, route `log` of the worker's own log: the limit both packed and unpacked."""


def check_each_stretch_starts_at_its_own_offset_zero(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    for stretch, offset, text, size in (("a", 0, b"one\n", 4), ("a", 4, b"two\n", 8), ("b-2", 0, b"three\n", 6)):
        assert expect_message(caller.worker_log(stretch, offset, text), LogAppended).size == size
    packed = caller.worker_log("b-2", 6, gzip.compress(b"four\n"), gzipped=True)
    assert expect_message(packed, LogAppended).size == 11, "offsets count unpacked bytes"
    assert central.worker_log(caller.name) == b"one\ntwo\nthree\nfour\n"


def check_an_empty_chunk_returns_the_size_of_a_stretch(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    assert expect_message(caller.worker_log("a", 0, b""), LogAppended).size == 0
    expect_message(caller.worker_log("a", 0, b"one\n"), LogAppended)
    assert expect_message(caller.worker_log("a", 0, b""), LogAppended).size == 4
    assert expect_message(caller.worker_log("never", 0, b""), LogAppended).size == 0
    assert expect_message(caller.worker_log("a", 0, b""), LogAppended).size == 4, "an empty chunk must not begin a stretch"


def check_a_repeated_chunk_of_its_own_log_is_ignored_and_a_gap_refused(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    for _ in range(2):
        assert expect_message(caller.worker_log("a", 0, b"one\n"), LogAppended).size == 4
    for offset, text in ((5, b"gap"), (2, b"overlap")):
        assert expect_refusal(caller.worker_log("a", offset, text), ProblemCode.LOG_OFFSET).size == 4
    assert central.worker_log(caller.name) == b"one\n"


def check_an_unknown_stretch_begins_at_the_offset_sent(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    assert expect_message(caller.worker_log("a", 1000, b"late\n"), LogAppended).size == 1005
    assert expect_message(caller.worker_log("a", 1005, b"r\n"), LogAppended).size == 1007
    assert central.worker_log(caller.name) == b"late\nr\n"


def check_a_malformed_stretch_or_offset_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    for stretch, offset in (("", 0), ("..%2F..", 0), ("a" * 65, 0), ("a", -1), ("a", "begin"), ("a", "")):
        expect_refusal(caller.worker_log(stretch, offset, b"text"), ProblemCode.INVALID)
    expect_refusal(caller.call("POST", "log", body=b"text"), ProblemCode.INVALID)


def check_a_chunk_of_its_own_log_that_is_too_large_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    expect_refusal(caller.worker_log("a", 0, b"x" * (MAX_WORKER_LOG + 1)), ProblemCode.TOO_LARGE)
    expect_refusal(caller.worker_log("a", 0, gzip.compress(b"\0" * (MAX_WORKER_LOG + 1)), gzipped=True), ProblemCode.TOO_LARGE)
    assert central.worker_log(caller.name) == b""
    assert expect_message(caller.worker_log("a", 0, b"y" * MAX_WORKER_LOG), LogAppended).size == MAX_WORKER_LOG, (
        "exactly 1 MiB is allowed"
    )


def check_a_worker_cannot_write_into_the_log_of_another(central: CentralUnderTest) -> None:
    one, other = Caller.connect(central), Caller.connect(central)
    expect_message(one.worker_log("a", 0, b"mine\n"), LogAppended)
    expect_message(other.worker_log("a", 0, b"yours\n"), LogAppended)
    assert (central.worker_log(one.name), central.worker_log(other.name)) == (b"mine\n", b"yours\n")
