"""Format of the bearer tokens: `<prefix>_<43 base64url characters>_<8 hex digits>`.

The prefix lets secret scanners recognise a leak. The checksum (CRC-32 of all before it) distinguishes a damaged token from a
revoked one without a request. The caller supplies the 256 random bits; this module generates no random data.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from enum import Enum

TOKEN_BYTES = 32


class TokenKind(str, Enum):
    """What a token is for; the value is its prefix."""

    ENROLMENT = "arenr"
    WORKER = "arwkr"


class MalformedToken(ValueError):
    """The text is not a token of this kind, or it was damaged on the way."""


def make_token(kind: TokenKind, random: bytes) -> str:
    """Return the token for 32 random bytes."""
    if len(random) != TOKEN_BYTES:
        raise ValueError(f"a token takes {TOKEN_BYTES} random bytes, got {len(random)}")
    body = f"{kind.value}_{base64.urlsafe_b64encode(random).rstrip(b'=').decode()}"
    return f"{body}_{binascii.crc32(body.encode()):08x}"


def check_token(kind: TokenKind, token: str) -> str:
    """Return *token* if it is well formed and of *kind*.

    Raises:
        MalformedToken: says what is wrong, without repeating the token.
    """
    body, _, checksum = token.rpartition("_")
    if not token.startswith(kind.value + "_"):
        raise MalformedToken(f"this is not a token of the kind that starts with {kind.value}_")
    if f"{binascii.crc32(body.encode()):08x}" != checksum:
        raise MalformedToken("the token's checksum is wrong: it was cut or altered; copy it again in full")
    return token


def hash_token(token: str) -> str:
    """Return the hash that central stores instead of the token: SHA-256, hex. 256 random bits need no salt and no stretching."""
    return hashlib.sha256(token.encode()).hexdigest()
