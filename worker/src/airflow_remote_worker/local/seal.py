"""A checksum at the end of a JSON file, so that a file that the disk has changed is recognised as damaged.

The checksum (the seal) is the last member of the object, so the file stays valid JSON, and programs that don't know the seal can
ignore it. A file without a seal is accepted unchecked. Both interpreters write such files, so this module needs only the
standard library.
"""

from __future__ import annotations

import zlib

_NAME = b',"crc":"'
_LENGTH = len(_NAME) + 8 + len(b'"}')


class Broken(ValueError):
    """The content has changed since it was sealed."""


def sealed(body: bytes) -> bytes:
    """Return *body*, a JSON object with at least one member, with its checksum."""
    return body[:-1] + _NAME + b"%08x" % zlib.crc32(body) + b'"}'


def unsealed(body: bytes) -> bytes:
    """Return the object without its seal.

    Raises:
        Broken: the checksum doesn't match.
    """
    rest, seal = body[:-_LENGTH], body[-_LENGTH:]
    if not seal.startswith(_NAME):
        return body
    content = rest + b"}"
    if seal != _NAME + b"%08x" % zlib.crc32(content) + b'"}':
        raise Broken("its checksum is wrong")
    return content
