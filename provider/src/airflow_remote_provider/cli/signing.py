"""Signs statements with a private key, which never leaves this computer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_remote_protocol.statements import Predicate


class PrivateKey:
    """The key in the file *path*. One that can't be used ends the command with a sentence."""

    def __init__(self, path: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            private = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise SystemExit(f"{path} can't be used as a private key: {error}") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise SystemExit(f"{path} is no Ed25519 key; make one with `airflow remote sign keygen`")
        self._private = private
        self._public = public_of(private)

    def sign(self, digest: str, said: Predicate) -> str:
        """Print what is signed, and return the envelope with the statement about *digest*."""
        from airflow_remote_protocol.statements import PAYLOAD_TYPE, make
        from securesystemslib.dsse import Envelope
        from securesystemslib.signer import CryptoSigner, SSlibKey

        public = self._public
        key = SSlibKey(public.id, "ed25519", "ed25519", {"public": public.raw.hex()})
        what = f"{said.kind.value} {said.name}".strip()
        more = [f"version {said.version}"] if said.version else []
        more += [f"serial {said.serial}"] if said.serial else []
        print(f"{what} ({', '.join([*more, f'tree {digest}'])}): signing with key {public.id}")
        envelope = Envelope(make(digest, said), PAYLOAD_TYPE, {})
        envelope.sign(CryptoSigner(self._private, key))
        return json.dumps(envelope.to_dict())


def public_of(private: Any) -> Any:
    """Return the :class:`PublicKey` of an Ed25519 private key."""
    from airflow_remote_protocol.statements import DER_PREFIX, PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(der[len(DER_PREFIX) :])


def times(expires: str | None) -> tuple[float, float | None]:
    """Return now and the time at which a signature expires, for the option `--expires`; None: never."""
    import time

    from airflow_remote_provider.cli.words import span_in

    now = float(int(time.time()))
    return now, None if expires is None else now + span_in("--expires", expires).total_seconds()
