"""A MariaDB server of our own, which stands for MySQL in the tests of the ledger: own data, own port; nothing survives `stop()`.

    with MariadbServer() as server:
        url = server.create_database("ledger")  # mysql+pymysql://…

MySQL 8 itself is in no package that Debian or PyPI offers; docs/reference/databases.md says how far MariaDB stands for it.
Debian's packages are installed if the programs are missing and we are root. The server refuses to run as root, so for root it
runs as `mysql` or `nobody`. The data live in the system's temporary directory, which that user can enter.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from testkit.debian import install, server_owner
from testkit.processes import Process, clean_environment, free_port, wait_until

USER = "airflow"

PACKAGES = ("mariadb-server-core", "mariadb-client-core")
"""The server's programs without a system service; the client brings what `mariadb-install-db` calls."""

# Durability is of no use to a test; connections are. What Airflow asks of MySQL (explicit defaults, utf8mb4) is set as its
# documentation says.
SETTINGS = {
    "bind-address": "127.0.0.1",
    "character-set-server": "utf8mb4",
    "collation-server": "utf8mb4_general_ci",
    "default-time-zone": "+00:00",
    "explicit-defaults-for-timestamp": "1",
    "innodb-buffer-pool-size": "128M",
    "innodb-doublewrite": "0",
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-flush-method": "nosync",
    "max-connections": "300",
    "skip-name-resolve": "1",
}


class MariadbServer:
    """One server, started by `start()`, gone after `stop()`. `start()` may be called again."""

    def __init__(self) -> None:
        self._password = secrets.token_hex(8)
        self._directory: Path | None = None
        self._process: Process | None = None
        self.port = 0

    def start(self) -> MariadbServer:
        programs = find_programs() or install_programs()
        owner = server_owner("mysql")
        self._client = programs["mariadb"]
        self._directory = Path(tempfile.mkdtemp(prefix="remote-mariadb-"))
        accounts = self._directory / "accounts.sql"
        accounts.write_text(
            "DELETE FROM mysql.global_priv WHERE User = 'root';\n"  # without a password, on every address of the machine
            "FLUSH PRIVILEGES;\n"
            f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        )
        accounts.chmod(0o600)
        if owner is not None:
            for path in (self._directory, accounts):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        data = self._directory / "data"
        install = subprocess.run(
            [
                *(programs["mariadb-install-db"], "--no-defaults", f"--datadir={data}", "--skip-test-db", "--skip-name-resolve"),
                "--auth-root-authentication-method=normal",
            ],
            env=clean_environment(),
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
            extra_groups=None if owner is None else [],
        )
        if install.returncode != 0:
            raise RuntimeError(f"mariadb-install-db failed:\n{install.stdout}{install.stderr}")
        self.port = free_port()
        self._process = Process(
            "mariadb",
            [
                *(programs["mariadbd"], "--no-defaults", f"--datadir={data}", f"--port={self.port}", f"--init-file={accounts}"),
                *(f"--socket={self._directory}/socket", f"--pid-file={self._directory}/pid"),
                *(f"--{name}={value}" for name, value in SETTINGS.items()),
            ],
            log=self._directory / "log",
            env=clean_environment(),
            cwd=self._directory,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
        )
        wait_until(self._is_ready, timeout_s=60, what="MariaDB accepts connections")
        return self

    def create_database(self, name: str) -> str:
        """Create the empty database *name* and return its SQLAlchemy URL."""
        self._run(f"CREATE DATABASE `{name}`")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop *name*. Whoever is connected stays so, without a database."""
        self._run(f"DROP DATABASE IF EXISTS `{name}`")

    def url(self, name: str, *, driver: str = "pymysql") -> str:
        return f"mysql+{driver}://{USER}:{self._password}@127.0.0.1:{self.port}/{name}?charset=utf8mb4"

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(timeout_s=20)
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> MariadbServer:
        return self if self._process is not None else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        assert self._process is not None
        if not self._process.is_running():
            raise RuntimeError(f"MariaDB ended at once\n{self._process.tail()}")
        return self._ask("SELECT 1").returncode == 0

    def _run(self, statement: str) -> None:
        done = self._ask(statement)
        if done.returncode != 0:
            raise RuntimeError(f"{statement} failed: {done.stderr.strip()}")

    def _ask(self, statement: str) -> subprocess.CompletedProcess[str]:
        address = ["--protocol=tcp", "--host=127.0.0.1", f"--port={self.port}", f"--user={USER}"]
        return subprocess.run(
            [self._client, "--no-defaults", *address, "-e", statement],
            env=clean_environment({"MYSQL_PWD": self._password}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )


def find_programs() -> dict[str, str] | None:
    """Return the paths of the programs that a server needs, or None if one is missing."""
    # The server's own directory is not in everybody's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = {name: shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db", "mariadb", "my_print_defaults")}
    known = {name: program for name, program in found.items() if program is not None}
    return known if len(known) == len(found) else None


def install_programs() -> dict[str, str]:
    """Install Debian's packages and return the paths of their programs.

    Raises:
        RuntimeError: they can't be installed; a person has to.
    """
    install(*PACKAGES)
    found = find_programs()
    if found is None:
        raise RuntimeError(f"apt-get installed {' '.join(PACKAGES)}, yet mariadbd or one of its programs is missing")
    return found


if __name__ == "__main__":
    # With `--install` only sees to it that the programs are there.
    print(*(find_programs() or install_programs()).values(), sep="\n")
    sys.exit(0)
