"""Platforms as uv names them, and the platform of this computer."""

from __future__ import annotations

import platform
import sys

from airflow_remote_protocol.platforms import BadPlatform, Platform, normal_processor

from airflow_remote_provider.packing.runtimes.errors import CannotBuild

TARGETS: dict[tuple[str, str, str], str] = {
    ("linux", "gnu", "x86_64"): "x86_64-manylinux_2_28",
    ("linux", "gnu", "aarch64"): "aarch64-manylinux_2_28",
    ("linux", "musl", "x86_64"): "x86_64-unknown-linux-musl",
    ("linux", "musl", "aarch64"): "aarch64-unknown-linux-musl",
    ("windows", "", "x86_64"): "x86_64-pc-windows-msvc",
    ("windows", "", "aarch64"): "aarch64-pc-windows-msvc",
    ("windows", "", "i686"): "i686-pc-windows-msvc",
    ("macos", "", "x86_64"): "x86_64-apple-darwin",
    ("macos", "", "aarch64"): "aarch64-apple-darwin",
}
"""By system, C library and processor: uv's `--python-platform`. glibc 2.28 is that of RHEL 8 and Debian 10, the
oldest systems for which current packages have wheels."""
SYSTEMS = {"win32": "windows", "darwin": "macos"}


def parse(text: str) -> Platform:
    """Return the platform that a user names.

    Raises:
        CannotBuild: it is no platform, or not one that uv knows.
    """
    try:
        found = Platform.parse(text)
    except BadPlatform as error:
        raise CannotBuild(f"{error}; the known ones are {known()}, with cp310, cp311, … for the version of Python") from None
    target_of(found)
    return found


def target_of(wanted: Platform) -> str:
    """Return *wanted* as uv's `--python-platform`.

    Raises:
        CannotBuild: uv does not know it.
    """
    target = TARGETS.get((wanted.system, wanted.libc, wanted.processor))
    if target is None:
        raise CannotBuild(
            f"nothing can be built for the platform {wanted}; the known ones are {known()}. A worker of another platform "
            "uses what is installed there: its own release, and the environment that runtime.python names"
        )
    return target


def known() -> str:
    """Return the known platforms, without the version of Python, for users."""
    return ", ".join("-".join(part for part in parts if part) for parts in TARGETS)


def own_platform() -> Platform:
    """Return the platform of this interpreter."""
    libc = ("gnu" if platform.libc_ver()[0] == "glibc" else "musl") if sys.platform == "linux" else ""
    python = f"3.{sys.version_info.minor}"
    return Platform(python, SYSTEMS.get(sys.platform, sys.platform), libc, normal_processor(platform.machine()))
