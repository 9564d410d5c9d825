"""A temporary MariaDB server in place of MySQL for tests of the ledger: own data, own port; nothing remains after `stop()`.

    with MariadbServer() as server:
        url = server.create_database("ledger")  # mysql+pymysql://…

Neither Debian nor PyPI has a package of MySQL 8; docs/reference/databases.md says what a test on MariaDB shows about MySQL.
Debian's packages are installed if the programs are missing and we are root. The server refuses to run as root; if we are root, it
runs as `mysql` or `nobody`.
"""

from __future__ import annotations

import secrets
import subprocess

from testkit.processes import clean_environment, free_port
from testkit.servers.debian import find_or_install
from testkit.servers.server import Server

USER = "airflow"

PROGRAMS = {
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
    "my_print_defaults": "mariadb-client-core",  # `mariadb-install-db` calls it
}
"""The programs that are needed and their Debian packages, none of which has a system service."""

# Tests need no durability, but many connections. What Airflow requires of MySQL (explicit defaults, utf8mb4) is set as its
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


class MariadbServer(Server):
    name = "mariadb"
    owner = "mysql"
    up_within_s = 60

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(8)
        self.port = 0

    def start(self) -> MariadbServer:
        found = find_or_install(PROGRAMS)
        self._client = found["mariadb"]
        home = self._make_home()
        accounts = home / "accounts.sql"
        accounts.write_text(
            "DELETE FROM mysql.global_priv WHERE User = 'root';\n"  # without a password, on every address of the machine
            "FLUSH PRIVILEGES;\n"
            f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
        )
        accounts.chmod(0o600)
        self._give_home_away()
        # Not the shared /tmp: two installations at once remove each other's temporary tables there.
        places = (f"--datadir={home / 'data'}", f"--tmpdir={home}")
        self._run_first(
            [
                *(found["mariadb-install-db"], "--no-defaults", *places, "--skip-test-db", "--skip-name-resolve"),
                "--auth-root-authentication-method=normal",
            ]
        )
        self.port = free_port()
        self._launch(
            [
                *(found["mariadbd"], "--no-defaults", *places, f"--port={self.port}", f"--init-file={accounts}"),
                *(f"--socket={home}/socket", f"--pid-file={home}/pid"),
                *(f"--{name}={value}" for name, value in SETTINGS.items()),
            ]
        )
        return self

    def create_database(self, name: str) -> str:
        """Create the empty database *name* and return its SQLAlchemy URL."""
        self._run(f"CREATE DATABASE `{name}`")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop *name*. Open connections stay open, without a database."""
        self._run(f"DROP DATABASE IF EXISTS `{name}`")

    def url(self, name: str, *, driver: str = "pymysql") -> str:
        return f"mysql+{driver}://{USER}:{self._password}@127.0.0.1:{self.port}/{name}?charset=utf8mb4"

    def _is_up(self) -> bool:
        return self._query("SELECT 1").returncode == 0

    def _run(self, statement: str) -> None:
        done = self._query(statement)
        if done.returncode != 0:
            raise RuntimeError(f"{statement} failed: {done.stderr.strip()}")

    def _query(self, statement: str) -> subprocess.CompletedProcess[str]:
        address = ["--protocol=tcp", "--host=127.0.0.1", f"--port={self.port}", f"--user={USER}"]
        return subprocess.run(
            [self._client, "--no-defaults", *address, "-e", statement],
            env=clean_environment({"MYSQL_PWD": self._password}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
