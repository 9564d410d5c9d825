"""Which bytes of a representation a request asks for: `Range` and `If-Range` (RFC 9110, 13.1.5 and 14.2). No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*\Z", re.ASCII)
LONGEST_NUMBER = 18
"""Digits. No representation is this long, so a longer number means the same as this one."""


@dataclass(frozen=True)
class Stretch:
    """The bytes from *start* to *end* (exclusive) of *size*."""

    start: int
    end: int
    size: int
    is_partial: bool
    """Whether the answer is 206, not 200."""

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def requested(range_header: str | None, if_range: str | None, *, etag: str, size: int) -> Stretch | None:
    """Return the stretch to send; None if the requested one does not exist (416).

    A range that is malformed, in another unit or one of several is ignored, as the RFC allows; so is one under an `If-Range` that
    is not exactly *etag* (with its quotes): the whole representation is sent.
    """
    whole = Stretch(0, size, size, is_partial=False)
    if range_header is None or (if_range is not None and if_range.strip() != etag):
        return whole
    found = RANGE.match(range_header)
    if found is None or found.groups() == ("", ""):
        return whole
    first, last = (None if text == "" else _number(text) for text in found.groups())
    if first is None:
        assert last is not None
        first, last = max(0, size - last), size - 1
    elif last is None:
        last = size - 1
    elif last < first:
        return whole  # malformed, says the RFC
    if first >= size:
        return None
    return Stretch(first, min(last, size - 1) + 1, size, is_partial=True)


def _number(text: str) -> int:
    text = text.lstrip("0") or "0"
    return int(text) if len(text) <= LONGEST_NUMBER else 10**LONGEST_NUMBER
