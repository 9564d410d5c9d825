"""Keys and signed statements for tests, made by the same library as those of users."""

from __future__ import annotations

import json
import time
from typing import Any

from airflow_remote_protocol.statements import DER_PREFIX, PAYLOAD_TYPE, Kind, Predicate, PublicKey, digest_of_keys, make
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey


class SigningKey:
    """A new key pair."""

    def __init__(self) -> None:
        private = Ed25519PrivateKey.generate()
        der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.public = PublicKey(der[len(DER_PREFIX) :])
        key = SSlibKey(self.public.id, "ed25519", "ed25519", {"public": self.public.raw.hex()})
        self._signer = CryptoSigner(private, key)

    def sign(self, digest: str, kind: Kind = Kind.BUNDLE, **said: Any) -> str:
        """Return a signed statement about the tree *digest*."""
        return signed(make(digest, Predicate(kind, time.time(), **said)), self)

    def hand_over_to(self, *keys: SigningKey, serial: int) -> str:
        """Return a signed statement that names *keys* as those to trust from now on."""
        lines = [key.public.line for key in keys]
        return self.sign(digest_of_keys(lines), Kind.KEYS, serial=serial, keys=lines)


def signed(payload: bytes, *keys: SigningKey) -> str:
    """Return an envelope around *payload* with a signature of each key."""
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    for key in keys:
        envelope.sign(key._signer)
    return json.dumps(envelope.to_dict())
