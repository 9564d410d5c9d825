"""Which bytes a request asks for."""

from __future__ import annotations

import pytest
from airflow_remote_provider.api.worker_v1.ranges import Stretch, requested
from hypothesis import given
from hypothesis import strategies as st

ETAG = '"abc"'
WHOLE = Stretch(0, 100, 100, is_partial=False)


def _asked(range_header: str | None, if_range: str | None = None, size: int = 100) -> Stretch | None:
    return requested(range_header, if_range, etag=ETAG, size=size)


@pytest.mark.parametrize(
    ("header", "stretch"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=0-", (0, 100)),
        ("bytes=99-", (99, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=10-1000", (10, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-100", (0, 100)),
        ("bytes=-101", (0, 100)),
        ("bytes= 5-6 ", (5, 7)),
        ("bytes=0005-00006", (5, 7)),
        ("bytes=0-" + "9" * 5000, (0, 100)),
        ("bytes=-" + "9" * 5000, (0, 100)),
    ],
)
def test_a_range_is_a_stretch(header: str, stretch: tuple[int, int]) -> None:
    assert _asked(header) == Stretch(*stretch, 100, is_partial=True)


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=-000", "bytes=" + "9" * 5000 + "-"])
def test_a_range_beyond_the_end_does_not_exist(header: str) -> None:
    assert _asked(header) is None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-4",
        "bytes=0-1,5-6",
        "bytes=0-1,",
        "bytes=a-b",
        "bytes=--1",
        "bytes=-1-",
        "bytes=1--2",
        "bytes=+1-2",
        "bytes=1.0-2",
        "bytes=\u0661-\u0662",
        "bytes=1-2\n",
        "items=0-1",
        "0-1",
    ],
)
def test_a_range_that_is_not_served_is_ignored(header: str | None) -> None:
    assert _asked(header) == WHOLE


def test_a_range_under_another_etag_is_ignored() -> None:
    assert _asked("bytes=1-", ETAG) == Stretch(1, 100, 100, is_partial=True)
    for other in ('"abd"', "abc", 'W/"abc"', "*", "", "Wed, 21 Oct 2015 07:28:00 GMT", f"{ETAG}, {ETAG}"):
        assert _asked("bytes=1-", other) == WHOLE
        assert _asked("bytes=100-", other) == WHOLE, "the range does not even have to exist"


def test_a_stretch_names_its_last_byte() -> None:
    stretch = _asked("bytes=10-19")
    assert stretch is not None and stretch.content_range == "bytes 10-19/100"


@given(
    st.text(alphabet="0123456789-, \tbytes=", max_size=30) | st.from_regex(r"bytes=[0-9]{0,25}-[0-9]{0,25}"),
    st.integers(1, 10**6),
)
def test_any_header_gives_a_stretch_within_the_pack_or_none(header: str, size: int) -> None:
    stretch = _asked(header, size=size)
    if stretch is not None:
        assert 0 <= stretch.start < stretch.end <= size
        assert stretch.is_partial or (stretch.start, stretch.end) == (0, size)
