from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from airflow_remote_worker.check.certificate import read_certificate
from airflow_remote_worker.check.tunnel import first_certificate

from testkit.authority import Authority


def der(pem: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(first_certificate(pem.read_text()))


def test_subject_and_issuer_are_read(tmp_path: Path) -> None:
    found = read_certificate(der(Authority(tmp_path, "Corp Größe CA").issue("plant-7", "localhost", "::1", days=10)))
    assert (found.subject, found.issuer) == ("O=Corp, CN=plant-7", "O=Corp, CN=Corp Größe CA")
    now = datetime.now(timezone.utc)
    assert abs(found.not_after - now - timedelta(days=10)) < timedelta(minutes=1)
    assert found.not_before < now


def test_a_certificate_valid_beyond_2049_is_read(tmp_path: Path) -> None:
    assert read_certificate(der(Authority(tmp_path, "CA").issue("w", days=365 * 40))).not_after.year > 2060


def test_every_authority_of_the_system_can_be_read() -> None:
    """The result agrees with that of `ssl`, for every authority of this machine."""
    context = ssl.create_default_context()
    context.load_default_certs()
    theirs = context.get_ca_certs()
    for ours, decoded in zip(context.get_ca_certs(binary_form=True), theirs, strict=True):
        names = {key: value for group in decoded["issuer"] for key, value in group}  # type: ignore[union-attr]
        found = read_certificate(ours)
        assert str(names.get("commonName", "")) in found.issuer
        assert found.not_after.timestamp() == ssl.cert_time_to_seconds(str(decoded["notAfter"]))


@pytest.mark.parametrize("cut", [0, 1, 5, 40, 200])
def test_half_a_certificate_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        read_certificate(der(Authority(tmp_path, "CA").file)[:cut])


def test_control_characters_don_t_reach_the_terminal(tmp_path: Path) -> None:
    assert read_certificate(der(Authority(tmp_path, "C\x1b[2JA").file)).subject == "O=Corp, CN=C?[2JA"
