"""A checksum at the end of a JSON file: a file that a disk garbled reads as damaged, not as something else.

The seal is the last member of the object, so the file stays JSON that anybody reads; who doesn't know the seal ignores it. A file
without one is taken as it is. Both interpreters write such files, so this needs nothing but the standard library.
"""

from __future__ import annotations

import zlib

_NAME = b',"crc":"'
_LENGTH = len(_NAME) + 8 + len(b'"}')


class Broken(ValueError):
    """The content is not what was sealed."""


def sealed(body: bytes) -> bytes:
    """Return *body*, a JSON object with at least one member, with its checksum."""
    return body[:-1] + _NAME + b"%08x" % zlib.crc32(body) + b'"}'


def unsealed(body: bytes) -> bytes:
    """Return the object without its seal.

    Raises:
        Broken: something has changed it since.
    """
    rest, seal = body[:-_LENGTH], body[-_LENGTH:]
    if not seal.startswith(_NAME):
        return body
    content = rest + b"}"
    if seal != _NAME + b"%08x" % zlib.crc32(content) + b'"}':
        raise Broken("its checksum is wrong")
    return content
