"""Signed statements about trees: what the owner of a key says that a tree is. Form only: nothing here verifies a signature.

A statement is an in-toto statement (v1) in a DSSE envelope (v1), both as JSON. Its subject is the tree, by SHA-256. A statement
of the kind `keys` names the keys that replace those that a worker has pinned; its subject is that list of keys.

Keys are Ed25519. A public key is written as in PEM (SubjectPublicKeyInfo, RFC 8410), or as the base64 line of it alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from enum import Enum
from typing import Annotated

import msgspec

from airflow_remote_protocol.messages import MAX_STATEMENT, Digest

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:airflow-remote:tree:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_KEYS = 20
"""Keys in one statement, and signatures of one envelope."""
DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""Of a SubjectPublicKeyInfo with an Ed25519 key, which ends with the 32 bytes of the key."""
KEY_LINE = re.compile(r"[A-Za-z0-9+/]{59}=\Z")

Time = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]
"""Seconds since the epoch, before the year 10000."""
Text = Annotated[str, msgspec.Meta(max_length=250)]
KeyId = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[!-~]+\Z")]


class BadStatement(ValueError):
    """It is not a statement of this version in an envelope; the text says why."""


class BadKey(ValueError):
    """It is not a public key; the text says why and what to do."""


class Kind(str, Enum):
    """What a statement is about."""

    BUNDLE = "bundle"
    RUNTIME = "runtime"
    RELEASE = "release"
    KEYS = "keys"


class Subject(msgspec.Struct, frozen=True):
    name: Text
    digest: dict[str, Digest]

    @property
    def sha256(self) -> str:
        return self.digest.get("sha256", "")


class Predicate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the subject is."""

    kind: Kind
    at: Time
    """When it was signed."""
    name: Text = ""
    version: Text = ""
    serial: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0
    """Of a runtime, a release or a list of keys: a worker takes none with a lower one than it has used."""
    expires: Time | None = None
    """From then on the statement counts no more; None: it does not expire."""
    keys: Annotated[list[str], msgspec.Meta(max_length=MAX_KEYS)] = []
    """With the kind `keys`: the base64 line of each key."""


class Statement(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="_type")
    subject: Annotated[list[Subject], msgspec.Meta(min_length=1, max_length=1)]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: Predicate

    @property
    def digest(self) -> str:
        """SHA-256 of what it is about."""
        return self.subject[0].sha256


class Signature(msgspec.Struct, frozen=True):
    keyid: KeyId
    sig: Annotated[str, msgspec.Meta(max_length=200)]


class Envelope(msgspec.Struct, frozen=True):
    """A DSSE envelope."""

    payload: Annotated[str, msgspec.Meta(max_length=MAX_STATEMENT)]
    payload_type: str = msgspec.field(name="payloadType")
    signatures: Annotated[list[Signature], msgspec.Meta(min_length=1, max_length=MAX_KEYS)]


class PublicKey(msgspec.Struct, frozen=True):
    """An Ed25519 key that verifies signatures."""

    raw: bytes

    @property
    def line(self) -> str:
        """The base64 line of its PEM form."""
        return base64.b64encode(DER_PREFIX + self.raw).decode()

    @property
    def pem(self) -> str:
        return f"-----BEGIN PUBLIC KEY-----\n{self.line}\n-----END PUBLIC KEY-----\n"

    @property
    def id(self) -> str:
        """Names it in signatures: the SHA-256 of its DER form."""
        return hashlib.sha256(DER_PREFIX + self.raw).hexdigest()


def parse_keys(text: str) -> list[PublicKey]:
    """Return the keys in *text*: PEM blocks, or base64 lines of them. Empty lines and lines that begin with # are ignored.

    Raises:
        BadKey: it has anything else, or no key.
    """
    keys = []
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith(("#", "-----BEGIN PUBLIC KEY", "-----END PUBLIC KEY")):
            continue
        if "PRIVATE KEY" in line:
            raise BadKey("it is a private key, which must stay where things are signed; use the file with .pub at its end")
        der = base64.b64decode(line) if KEY_LINE.match(line) else b""
        if not der.startswith(DER_PREFIX):
            raise BadKey("it is no Ed25519 public key in PEM; make one with `airflow remote sign keygen`")
        keys.append(PublicKey(der[len(DER_PREFIX) :]))
    if not keys:
        raise BadKey("it has no key; make one with `airflow remote sign keygen`")
    return keys


def digest_of_keys(lines: Sequence[str]) -> str:
    """Return the SHA-256 of a list of keys, the subject of a statement of the kind `keys`."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def make(digest: str, predicate: Predicate) -> bytes:
    """Return the payload of an envelope: the statement about *digest*."""
    subject = Subject(predicate.name or predicate.kind.value, {"sha256": digest})
    return msgspec.json.encode(Statement(STATEMENT_TYPE, [subject], PREDICATE_TYPE, predicate))


def open_envelope(text: str) -> tuple[Envelope, Statement]:
    """Return an envelope and the statement in it. Its signatures are not verified.

    Raises:
        BadStatement: it is too long, or has another form.
    """
    if len(text) > MAX_STATEMENT:
        raise BadStatement(f"a statement has at most {MAX_STATEMENT} characters; this one has {len(text)}")
    try:
        envelope = msgspec.json.decode(text.encode(), type=Envelope)
        payload = base64.b64decode(envelope.payload, validate=True)
        statement = msgspec.json.decode(payload, type=Statement)
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError) as error:
        raise BadStatement(f"it is no in-toto statement in a DSSE envelope: {str(error)[:200]}") from None
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BadStatement(f"its payload is {envelope.payload_type[:100]!r}; expected {PAYLOAD_TYPE!r}")
    if (statement.type, statement.predicate_type) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise BadStatement(f"it is a statement of another type ({statement.predicate_type[:100]!r}); update the older side")
    if not statement.digest:
        raise BadStatement("its subject has no SHA-256")
    if len({signature.keyid for signature in envelope.signatures}) != len(envelope.signatures):
        raise BadStatement("it has two signatures of one key")
    if statement.predicate.kind is Kind.KEYS and digest_of_keys(statement.predicate.keys) != statement.digest:
        raise BadStatement("its subject is not the list of keys that it names")
    return envelope, statement
