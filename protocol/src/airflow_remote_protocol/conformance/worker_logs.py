"""A worker's own log arrives in stretches, each in order and once."""

from __future__ import annotations

import gzip

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.central import CentralUnderTest
from airflow_remote_protocol.conformance.insist import refused, succeeded
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import LogAppended

MAX_WORKER_LOG = 1 << 20
"""docs/protocol.md, the worker's own `log` route: packed and unpacked."""


def check_stretches_follow_each_other_each_from_its_own_beginning(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    for stretch, offset, text, size in (("a", 0, b"one\n", 4), ("a", 4, b"two\n", 8), ("b-2", 0, b"three\n", 6)):
        assert succeeded(caller.worker_log(stretch, offset, text), LogAppended).size == size
    packed = caller.worker_log("b-2", 6, gzip.compress(b"four\n"), gzipped=True)
    assert succeeded(packed, LogAppended).size == 11, "offsets count unpacked bytes"
    assert central.worker_log(caller.name) == b"one\ntwo\nthree\nfour\n"


def check_an_empty_chunk_asks_how_much_central_has_of_a_stretch(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    assert succeeded(caller.worker_log("a", 0, b""), LogAppended).size == 0
    succeeded(caller.worker_log("a", 0, b"one\n"), LogAppended)
    assert succeeded(caller.worker_log("a", 0, b""), LogAppended).size == 4
    assert succeeded(caller.worker_log("never", 0, b""), LogAppended).size == 0
    assert succeeded(caller.worker_log("a", 0, b""), LogAppended).size == 4, "a question begins nothing"


def check_a_repeated_chunk_of_its_own_log_is_ignored_and_a_gap_refused(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    for _ in range(2):
        assert succeeded(caller.worker_log("a", 0, b"one\n"), LogAppended).size == 4
    for offset, text in ((5, b"gap"), (2, b"overlap")):
        assert refused(caller.worker_log("a", offset, text), ProblemCode.LOG_OFFSET).size == 4
    assert central.worker_log(caller.name) == b"one\n"


def check_a_stretch_that_central_never_saw_begins_where_it_is(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    assert succeeded(caller.worker_log("a", 1000, b"late\n"), LogAppended).size == 1005
    assert succeeded(caller.worker_log("a", 1005, b"r\n"), LogAppended).size == 1007
    assert central.worker_log(caller.name) == b"late\nr\n"


def check_a_stretch_or_offset_that_is_none_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    for stretch, offset in (("", 0), ("..%2F..", 0), ("a" * 65, 0), ("a", -1), ("a", "begin"), ("a", "")):
        refused(caller.worker_log(stretch, offset, b"text"), ProblemCode.INVALID)
    refused(caller.call("POST", "log", body=b"text"), ProblemCode.INVALID)


def check_a_chunk_of_its_own_log_that_is_too_large_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    refused(caller.worker_log("a", 0, b"x" * (MAX_WORKER_LOG + 1)), ProblemCode.TOO_LARGE)
    refused(caller.worker_log("a", 0, gzip.compress(b"\0" * (MAX_WORKER_LOG + 1)), gzipped=True), ProblemCode.TOO_LARGE)
    assert central.worker_log(caller.name) == b""
    assert succeeded(caller.worker_log("a", 0, b"y" * MAX_WORKER_LOG), LogAppended).size == MAX_WORKER_LOG, (
        "exactly 1 MiB is allowed"
    )


def check_one_worker_writes_nothing_into_anothers(central: CentralUnderTest) -> None:
    one, other = Caller.at_work(central), Caller.at_work(central)
    succeeded(one.worker_log("a", 0, b"mine\n"), LogAppended)
    succeeded(other.worker_log("a", 0, b"yours\n"), LogAppended)
    assert (central.worker_log(one.name), central.worker_log(other.name)) == (b"mine\n", b"yours\n")
