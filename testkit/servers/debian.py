"""Installs Debian's packages when a server that a test needs is missing, and chooses the user that such a server runs as."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def find_or_install(packages: Mapping[str, str]) -> dict[str, str]:
    """Return the path of each program that is a key of *packages*; install the Debian packages of missing programs first.

    Raises:
        RuntimeError: they can't be installed; the user has to install them.
    """
    missing = sorted({package for name, package in packages.items() if _find(name) is None})
    if missing:
        install(*missing)
    found = {name: _find(name) for name in packages}
    known = {name: program for name, program in found.items() if program is not None}
    if len(known) < len(found):
        raise RuntimeError(
            f"apt-get installed {' '.join(missing)}, but {' '.join(sorted(set(found) - set(known)))} is still missing"
        )
    return known


def _find(program: str) -> str | None:
    # Debian installs servers into a directory that is not on an ordinary user's PATH.
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


def install(*packages: str) -> None:
    """Install *packages* without starting their services.

    Raises:
        RuntimeError: not root, no apt-get, or the installation failed; the user has to install them.
    """
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(
            f"Not all of these are installed: {names}. Install them (Debian, Ubuntu: sudo apt-get install {names}) and retry."
        )
    # RUNLEVEL=1 keeps the package from starting a server of its own.
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with Path("/run/lock/airflow-remote-tests").open("w") as lock:
        # One at a time: `update` doesn't wait for another one, whatever its options.
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(f"installing Debian's {names}", file=sys.stderr, flush=True)
        for arguments in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
            command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments]
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def server_owner(preferred: str) -> pwd.struct_passwd | None:
    """Return the user that a server that refuses to run as root runs as: None for our own, else *preferred* or `nobody`.

    Raises:
        RuntimeError: we are root and neither user exists.
    """
    if os.geteuid() != 0:
        return None
    for name in (preferred, "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError(f"this server refuses to run as root, and neither of the users {preferred!r} and 'nobody' exists")
