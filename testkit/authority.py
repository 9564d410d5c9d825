"""A private certificate authority, as companies run one: it signs certificates for servers and for workers.

Needs `cryptography`, which central's environment has.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """An authority. Its certificate is at *file*, the certificates that it signs are in the same directory."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.file = directory / "authority.pem"
        self.key_file = directory / "authority.key"
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key.public_key(), is_authority=True)
        self.file.write_bytes(_pem(self._certificate))
        self.key_file.write_bytes(_private_pem(self._key))

    def issue(self, name: str, *addresses: str, days: float = 30) -> Path:
        """Return a PEM file with a new key and its certificate for *name* and *addresses* (host names or IP addresses)."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key.public_key(), addresses=addresses, days=days)
        path = self._directory / f"{name}.pem"
        path.write_bytes(_private_pem(key) + _pem(certificate))
        path.chmod(0o600)
        return path

    def _sign(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        *,
        addresses: tuple[str, ...] = (),
        days: float = 30,
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            # Also valid for certificates that have expired (negative *days*): they must begin before they end.
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if addresses:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(a) for a in addresses]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Corp"), x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
