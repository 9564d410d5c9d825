"""Reads subject, issuer and validity of an X.509 certificate. Verifies nothing.

`check` shows certificates that are *not* trusted, and `ssl` decodes only trusted ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

# RFC 5280, section 4.1. Tags are those of DER.
_SEQUENCE, _UTC_TIME, _VERSION = 0x30, 0x17, 0xA0
_NAMES = {"2.5.4.3": "CN", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.6": "C"}


@dataclass(frozen=True)
class Certificate:
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime


def read_certificate(der: bytes) -> Certificate:
    """Return the fields of the certificate *der*.

    Raises:
        ValueError: *der* is not a certificate.
    """
    try:
        outer = dict(enumerate(_parts(_content(der))))
        fields = [field for field in _parts(outer[0][1]) if field[0] != _VERSION]
        # serial number, signature algorithm, issuer, validity, subject, …
        _, _, issuer, validity, subject = (content for _, content in fields[:5])
        not_before, not_after = (_time(tag, content) for tag, content in _parts(validity))
        return Certificate(_name(subject), _name(issuer), not_before, not_after)
    except (IndexError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"not a certificate ({error})") from None


def _content(der: bytes) -> bytes:
    tag, content = next(_parts(der), (0, b""))
    if tag != _SEQUENCE:
        raise ValueError(f"begins with tag {tag:#x}")
    return content


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, content) of each element."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(der[at : at + count], "big"), at + count
        if at + size > len(der):
            raise ValueError("cut off")
        yield tag, der[at : at + size]
        at += size


def _name(der: bytes) -> str:
    found = []
    for _, group in _parts(der):
        for _, pair in _parts(group):
            (_, oid), (tag, value) = _parts(pair)
            name = _NAMES.get(_oid(oid))
            if name:
                text = value.decode("utf-16-be" if tag == 0x1E else "utf-8", "replace")
                found.append(f"{name}={''.join(c if c.isprintable() else '?' for c in text)[:100]}")
    return ", ".join(found) or "(no name)"


def _oid(content: bytes) -> str:
    numbers, value = [content[0] // 40, content[0] % 40], 0
    for byte in content[1:]:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    return ".".join(map(str, numbers))


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # two digits: years from 50 on are 19xx (RFC 5280)
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
