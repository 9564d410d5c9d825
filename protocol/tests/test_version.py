"""Versions and capabilities: minor differences are accepted, major ones are refused."""

from __future__ import annotations

import pytest
from airflow_remote_protocol.version import (
    EPOCH_HEADER,
    MAJOR,
    MARKER_HEADER,
    MINOR,
    PROBLEM_HEADER,
    PROTOCOL_VERSION,
    SESSION_HEADER,
    Capability,
    VersionMismatch,
    agree,
    check_version,
)


def test_the_own_version_is_accepted() -> None:
    assert check_version(PROTOCOL_VERSION) == (MAJOR, MINOR)


def test_another_minor_version_is_accepted() -> None:
    assert check_version(f"{MAJOR}.99") == (MAJOR, 99)


@pytest.mark.parametrize("theirs", [f"{MAJOR + 1}.0", "0.1"])
def test_another_major_version_is_a_mismatch_that_names_both(theirs: str) -> None:
    with pytest.raises(VersionMismatch, match=rf"{theirs}, this one speaks {PROTOCOL_VERSION}"):
        check_version(theirs)


@pytest.mark.parametrize("theirs", ["", "1", "1.", ".0", "one.two", "1.0.0", "v1.0", "1,0", "9" * 10_000 + ".0"])
def test_a_malformed_version_is_a_mismatch_and_quoted_in_short(theirs: str) -> None:
    with pytest.raises(VersionMismatch) as caught:
        check_version(theirs)
    assert len(str(caught.value)) < 200


def test_only_capabilities_that_both_ends_name_are_used() -> None:
    assert agree(frozenset(Capability), ["gzip-log"]) == {Capability.GZIP_LOG}
    assert agree(frozenset(), ["gzip-log"]) == frozenset()


def test_unknown_capabilities_are_ignored() -> None:
    assert agree(frozenset({Capability.TASK}), ["task", "time-travel"]) == {Capability.TASK}


def test_header_names_are_in_lower_case_and_differ() -> None:
    names = [MARKER_HEADER, PROBLEM_HEADER, EPOCH_HEADER, SESSION_HEADER]
    assert len({name.lower() for name in names}) == len(names)
    assert all(name == name.lower() for name in names)
