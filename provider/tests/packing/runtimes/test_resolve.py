"""What users read when uv fails: the package, the cause and the remedy, from what uv 0.13 prints."""

from __future__ import annotations

import pytest
from airflow_remote_protocol.platforms import Platform
from airflow_remote_provider.packing.runtimes.errors import without_addresses
from airflow_remote_provider.packing.runtimes.resolve import Wanted, explain

WANTED = Wanted(Platform("3.10", "linux", "musl", "x86_64"), (), (), ("dateutil==4.0.0", "urllib3==2.8.0"), ())
NOT_FOUND = "error: No solution found when resolving dependencies\n  cause: "


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (
            f"{NOT_FOUND}Because thing==1.0 has no usable wheels and only thing==1.0 is available, …\n"
            "hint: Wheels are required for `thing` because building from source is disabled for all packages",
            "thing has no wheel for cp310-linux-musl-x86_64. Require a version that has one",
        ),
        (
            f"{NOT_FOUND}Because uvloop==0.6.1 has no wheels with a matching Python ABI tag and you require uvloop",
            "uvloop has no wheel for cp310-linux-musl-x86_64.",
        ),
        (
            f"{NOT_FOUND}Because botocore>=1.31.0 depends on dateutil>=2.1,<3.0.0 and dateutil==4.0.0, we can conclude …\n"
            "hint: Wheels are required for `amazon` because building from source is disabled for all packages",
            "the requirements don't agree with versions that central has: dateutil==4.0.0. Name",
        ),
        (
            f"{NOT_FOUND}Because nosuch was not found in the package registry and you require nosuch==3",
            "the package index has no nosuch;",
        ),
        (
            f"{NOT_FOUND}Because there is no version of click==99 and you require click==99",
            "the package index has no click==99, which",
        ),
        (
            f"{NOT_FOUND}Because the requested Python version does not satisfy Python>=3.11 and standard==1.21.0 depends on "
            "Python>=3.11, we can conclude that standard==1.21.0 cannot be used.",
            "standard==1.21.0 needs Python >=3.11, and cp310-linux-musl-x86_64 has 3.10;",
        ),
        (f"{NOT_FOUND}Because you require click==8.1.7 and click==8.5.1, …", "the requirements contradict each other."),
        (
            "error: Request failed\n  cause: Failed to fetch: https://index/simple/\n  cause: invalid peer certificate",
            "the certificate of the package index is not trusted: set UV_SYSTEM_CERTS=1",
        ),
        (
            "error: Failed to fetch: https://index/simple/click/\n  cause: tcp connect error",
            "the package index can't be reached.",
        ),
        ("error: 401 Unauthorized", "the package index refuses access;"),
        ("error: Hash mismatch for `click==8.1`", "the package index gave a file with another hash"),
        ("error: Failed to build `thing==1.0`", "a package can't be built on central;"),
        ("error: something new", "uv failed to resolve the requirements"),
    ],
)
def test_a_failure_of_uv_is_explained(said: str, text: str) -> None:
    error = explain("lock", said + "\n", WANTED)
    assert str(error).startswith(text)
    assert error.detail == said


def test_addresses_are_removed_from_what_is_stored() -> None:
    text = without_addresses("Failed to fetch: https://ann:secret@index.example/simple/click/ (file:///srv/wheels)")
    assert text == "Failed to fetch: (an address) ((an address))"
