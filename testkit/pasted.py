"""A machine on which a user pastes the block of the Join dialog: a home, Python, a package index, and nothing else.

Two programs are stand-ins, for a test has no service manager: `systemctl` notes what it is to start, and `loginctl` succeeds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testkit.processes import Process, clean_environment
from testkit.versions import WORK

LOCK = WORK.parent / "requirements/worker.lock"
SYSTEMCTL = """#!/bin/sh
[ "$1 $2" = "--user restart" ] || exit 0
sed -n 's/^ExecStart=//p' "$HOME/.config/systemd/user/$3.service" >"$HOME/started"
"""
NOT_ROOT = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
"""The block is for the user that is to run the worker, who is not root."""


def is_possible() -> bool:
    """Return whether a block can be pasted here by a user who is not root."""
    return os.geteuid() != 0 or subprocess.run([*NOT_ROOT, "true"], capture_output=True).returncode == 0


class Machine:
    """Its home is *home*, which is made."""

    def __init__(self, home: Path) -> None:
        self.home = home
        programs, index = home.with_name("programs"), home.with_name("index")
        home.mkdir()
        programs.mkdir()
        python = Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info)
        # Not a link: the interpreter finds its library beside itself.
        scripts = {"systemctl": SYSTEMCTL, "loginctl": "#!/bin/sh\n", "python3": f'#!/bin/sh\nexec {python} "$@"\n'}
        for name, text in scripts.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        download = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", LOCK]
        subprocess.run([*download, "--dest", index], check=True, timeout=120)
        for wheel in (WORK / "wheels").glob("*.whl"):
            shutil.copy(wheel, index)
        settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
        self._environment = clean_environment({"HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin", **settings})

    def paste(self, block: str) -> str:
        """Run *block* by bash, as a user who is not root; return what it printed."""
        user = NOT_ROOT if os.geteuid() == 0 else ()
        done = subprocess.run(
            [*user, "bash"], input=block, cwd=self.home, env=self._environment, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def service(self) -> Iterator[None]:
        """Run what the stand-in of the service manager was asked to start."""
        words = (self.home / "started").read_text().split()
        started = Process("service", words, log=self.home / "service.out", env=self._environment, cwd=self.home)
        try:
            yield
        finally:
            started.stop()
