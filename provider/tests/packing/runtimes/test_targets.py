"""Names of platforms for uv, and the platform of this computer."""

from __future__ import annotations

import platform
import sys

import pytest
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.targets import own_platform, parse, target_of


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("cp311-linux-gnu-x86_64", "x86_64-manylinux_2_28"),
        ("cp311-linux-gnu-arm64", "aarch64-manylinux_2_28"),
        ("cp310-linux-musl-x86_64", "x86_64-unknown-linux-musl"),
        ("cp312-windows-amd64", "x86_64-pc-windows-msvc"),
        ("cp313-macos-arm64", "aarch64-apple-darwin"),
    ],
)
def test_a_platform_has_a_name_for_uv(text: str, target: str) -> None:
    assert target_of(parse(text)) == target


def test_other_platforms_are_refused_with_the_known_ones() -> None:
    for text in ("cp311-linux-gnu-s390x", "pp311-linux-gnu-x86_64"):
        with pytest.raises(CannotBuild, match="the known ones are linux-gnu-x86_64, linux-gnu-aarch64, linux-musl-x86_64"):
            parse(text)


def test_this_computer_has_a_platform() -> None:
    own = own_platform()
    assert own.python == f"3.{sys.version_info.minor}"
    assert own.libc == ("gnu" if platform.libc_ver()[0] == "glibc" else "musl" if sys.platform == "linux" else "")
    assert parse(str(own)) == own
