"""Debian's packages that the test kit needs, installed when they are missing and we are root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def install(package: str) -> None:
    """Install *package*, without starting any service of its.

    Raises:
        RuntimeError: not root, no apt-get, or the installation failed; a person has to install it.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(
            f"{package} is not installed. Install it (Debian, Ubuntu: sudo apt-get install {package}) and try again."
        )
    # RUNLEVEL=1 keeps the package from starting a server of its own.
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    print(f"installing Debian's package {package}, which is missing", file=sys.stderr, flush=True)
    for arguments in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", package]):
        command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
