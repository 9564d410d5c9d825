"""A temporary Postgres server: own data, own port, own socket; nothing remains after `stop()`.

    with PostgresServer() as server:
        url = server.create_database("ledger")  # postgresql+psycopg2://…

Debian's packages are installed if the binaries are missing and we are root. Postgres refuses to run as root; if we are root, it
runs as `postgres`.
"""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from testkit.processes import clean_environment, free_port
from testkit.servers.debian import install
from testkit.servers.server import Server

USER = "airflow"

# Tests need no durability, but many connections: each of central's processes holds up to 15.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "listen_addresses": "127.0.0.1",
    "timezone": "UTC",
}


class PostgresServer(Server):
    name = "postgres"
    owner = "postgres"
    up_within_s = 60
    stop_signal = signal.SIGINT  # its "fast" stop: sessions are cut, shared memory is released

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """*settings* are added to :data:`SETTINGS`."""
        super().__init__()
        self._settings = SETTINGS | dict(settings or {})
        self._password = secrets.token_hex(8)
        self.port = 0

    def start(self) -> PostgresServer:
        self._binaries = find_binaries() or install_binaries()
        home = self._make_home()
        password_file = home / "password"
        password_file.write_text(self._password)
        self._give_home_away()
        command: list[str | Path] = [self._binaries / "initdb", "-D", home / "data", "-U", USER, "-E", "UTF8"]
        self._run_first([*command, "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-sync"])
        self.port = free_port()
        self.resume()
        return self

    def crash(self) -> None:
        """End it as a crash does, without notifying clients or writing data; `resume()` starts it on the same data."""
        assert self._process is not None
        # Postgres's "immediate" stop, which releases shared memory.
        self._process.stop(signal.SIGQUIT, timeout_s=self.stop_within_s)

    def halt(self) -> None:
        """End it as an administrator does, and cut its sessions; `resume()` starts it on the same data."""
        assert self._process is not None
        self._process.stop(self.stop_signal, timeout_s=self.stop_within_s)

    def resume(self, variables: Mapping[str, str] | None = None) -> None:
        """Run the server on its existing data, with *variables* in its environment; return when it answers."""
        assert self._home is not None
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self._binaries / "postgres", "-D", self._home / "data", "-p", str(self.port)]
        self._launch([*command, "-c", f"unix_socket_directories={self._home}", *options], variables)

    def create_database(self, name: str) -> str:
        """Create the empty database *name* and return its SQLAlchemy URL."""
        self._run("createdb", name)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop *name* and cut its open connections."""
        self._run("dropdb", "--force", "--if-exists", name)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg2://{USER}:{self._password}@127.0.0.1:{self.port}/{name}"

    def _is_up(self) -> bool:
        ready: list[str | Path] = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, env=clean_environment(), stdin=subprocess.DEVNULL).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        command: list[str | Path] = [self._binaries / program, "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, *arguments]
        done = subprocess.run(
            command,
            env=clean_environment({"PGPASSWORD": self._password}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(arguments)} failed: {done.stderr.strip()}")


def find_binaries() -> Path | None:
    """Return the directory of the newest installed server's programs, or None."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: _version(path.parent.parent.name))
    if debian:
        return debian[-1].parent
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).resolve().parent if elsewhere else None


def install_binaries() -> Path:
    """Install Debian's `postgresql` and return the directory of its programs.

    Raises:
        RuntimeError: it can't be installed; the user has to install it.
    """
    install("postgresql")
    found = find_binaries()
    if found is None:
        raise RuntimeError("apt-get installed postgresql, but /usr/lib/postgresql/*/bin/initdb is missing")
    return found


def _version(text: str) -> int:
    return int(re.sub(r"\D.*", "", text) or 0)


def main() -> int:
    """Run a server until Ctrl-C and print its URL. With `--install`, only install the programs if they are missing."""
    if "--install" in sys.argv[1:]:
        print(find_binaries() or install_binaries())
        return 0
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with PostgresServer() as server:
        print(server.create_database("airflow"), flush=True)
        try:
            ended.wait()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
