"""A job's log arrives complete, in order, once and within its limits."""

from __future__ import annotations

import gzip

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.central import CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_no_content, expect_refusal
from airflow_remote_protocol.errors import Decision, ProblemCode
from airflow_remote_protocol.messages import LogAppended

MAX_LOG_PACKED = 1 << 20
MAX_LOG_UNPACKED = 8 << 20
"""docs/protocol.md, the `log` route."""


def check_log_chunks_are_appended_in_order(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    text = b""
    for chunk in (b"one\n", b"", b"two\n", "drei \N{SNOWMAN}\n".encode()):
        text += chunk
        size = expect_message(caller.log(offer, len(text) - len(chunk), chunk), LogAppended).size
        assert size == len(text), f"central has {len(text)} bytes and reports {size}"
    assert central.log_bytes(offer.job_id) == text, "the log must arrive byte for byte"


def check_a_repeated_log_chunk_is_ignored(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_message(caller.log(offer, 0, b"one\n"), LogAppended)
    expect_message(caller.log(offer, 4, b"two\n"), LogAppended)
    for offset, chunk in ((0, b"one\n"), (4, b"two\n"), (0, b"one\ntwo\n")):
        assert expect_message(caller.log(offer, offset, chunk), LogAppended).size == 8, "a repeat is answered with the same size"
    assert central.log_bytes(offer.job_id) == b"one\ntwo\n", "a repeat must not be written twice"


def check_a_gap_or_an_overlap_in_the_log_is_refused_with_centrals_size(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_message(caller.log(offer, 0, b"one\n"), LogAppended)
    for offset, chunk in ((5, b"gap\n"), (1_000_000, b"gap\n"), (2, b"overlap\n")):
        problem = expect_refusal(caller.log(offer, offset, chunk), ProblemCode.LOG_OFFSET)
        assert problem.size == 4, f"central has 4 bytes and reports {problem.size}"
        assert problem.decision is Decision.REWIND, "the worker continues from central's size"
    assert central.log_bytes(offer.job_id) == b"one\n", "nothing may be written at a wrong offset"


def check_a_malformed_log_offset_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    for offset in (-1, "begin", ""):
        expect_refusal(caller.log(offer, offset, b"text"), ProblemCode.INVALID)
    expect_refusal(caller.call("POST", f"jobs/{offer.job_id}/log", body=b"text", epoch=offer.epoch), ProblemCode.INVALID)


def check_a_gzipped_log_chunk_counts_unpacked(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    first, second = b"the same line again\n" * 5000, b"and another\n"
    assert expect_message(caller.log(offer, 0, gzip.compress(first), gzipped=True), LogAppended).size == len(first)
    size = expect_message(caller.log(offer, len(first), gzip.compress(second), gzipped=True), LogAppended).size
    assert size == len(first) + len(second), "offsets count unpacked bytes"
    assert central.log_bytes(offer.job_id) == first + second, "the log must be stored unpacked"


def check_garbage_in_place_of_gzip_is_invalid(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    whole = gzip.compress(b"a line that is cut on its way\n" * 100)
    for body in (b"this is not gzip", whole[:-12], whole[:20] + b"\xff" * 20 + whole[40:]):
        expect_refusal(caller.log(offer, 0, body, gzipped=True), ProblemCode.INVALID)
    assert central.log_bytes(offer.job_id) == b"", "nothing of a broken chunk may be kept"


def check_a_log_chunk_that_is_too_large_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_job()
    expect_refusal(caller.log(offer, 0, b"x" * (MAX_LOG_PACKED + 1)), ProblemCode.TOO_LARGE)
    bomb = gzip.compress(b"\0" * (MAX_LOG_UNPACKED + 1))
    expect_refusal(caller.log(offer, 0, bomb, gzipped=True), ProblemCode.TOO_LARGE)
    assert central.log_bytes(offer.job_id) == b"", "nothing of a chunk that is too large may be kept"
    biggest = b"y" * MAX_LOG_PACKED
    assert expect_message(caller.log(offer, 0, biggest), LogAppended).size == MAX_LOG_PACKED, "exactly 1 MiB is allowed"


def check_a_log_may_still_grow_after_the_jobs_end(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    reported, ended = caller.start_job(), caller.start_job()
    expect_no_content(caller.report(reported))
    central.end_task(ended.job_id)
    for offer in (reported, ended):
        assert expect_message(caller.log(offer, 0, b"last words\n"), LogAppended).size == 11
        assert central.log_bytes(offer.job_id) == b"last words\n", "the last lease may write after the end"


def check_every_lease_counts_its_log_from_zero(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    first = caller.take_job()
    expect_message(caller.log(first, 0, b"first lease\n"), LogAppended)
    expect_no_content(caller.decline(first))
    central.skip_delay(first.job_id)
    second = caller.await_offer()
    assert expect_message(caller.log(second, 0, b"second\n"), LogAppended).size == 7, "a new epoch's log starts at offset 0"
    assert central.log_bytes(first.job_id).endswith(b"second\n"), "the new lease's log must be kept"
