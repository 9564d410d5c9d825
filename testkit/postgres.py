"""A Postgres server of our own: own data, own port, own socket; nothing survives `stop()`.

    with PostgresServer() as server:
        url = server.create_database("ledger")  # postgresql+psycopg2://…

Debian's packages are installed if the binaries are missing and we are root. Postgres refuses to run as root, so for root it runs
as `postgres`. The data live in the system's temporary directory, not in the tree: that user may not be able to enter the tree.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from testkit.debian import install, server_owner
from testkit.processes import Process, clean_environment, free_port, wait_until

USER = "airflow"

# Durability is of no use to a test; connections are: central's processes hold up to 15 each.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "listen_addresses": "127.0.0.1",
    "timezone": "UTC",
}


class PostgresServer:
    """One server, started by `start()`, gone after `stop()`. `start()` may be called again."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """*settings* are added to :data:`SETTINGS`."""
        self._settings = SETTINGS | dict(settings or {})
        self._password = secrets.token_hex(8)
        self._directory: Path | None = None
        self._process: Process | None = None
        self.port = 0

    def start(self) -> PostgresServer:
        binaries = find_binaries() or install_binaries()
        owner = server_owner("postgres")
        self._binaries = binaries
        self._directory = Path(tempfile.mkdtemp(prefix="remote-pg-"))
        password_file = self._directory / "password"
        password_file.write_text(self._password)
        if owner is not None:
            for path in (self._directory, password_file):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        command: list[str | Path] = [binaries / "initdb", "-D", self._directory / "data", "-U", USER, "-E", "UTF8"]
        command += ["--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-sync"]
        initdb = subprocess.run(
            command,
            env=clean_environment(),
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
            extra_groups=None if owner is None else [],
        )
        if initdb.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{initdb.stdout}{initdb.stderr}")
        self.port = free_port()
        self.resume()
        return self

    def crash(self) -> None:
        """End it as a crash does: nobody is told, nothing is written; `resume()` starts it on the same data."""
        assert self._process is not None
        self._process.stop(signal.SIGQUIT, timeout_s=20)  # Postgres's "immediate" stop, which gives shared memory back

    def halt(self) -> None:
        """End it as an administrator does, and cut its sessions; `resume()` starts it on the same data."""
        assert self._process is not None
        self._process.stop(signal.SIGINT, timeout_s=20)

    def resume(self, variables: Mapping[str, str] | None = None) -> None:
        """Run the server on the data that are there, with *variables* in its environment; return when it answers."""
        assert self._directory is not None
        owner = server_owner("postgres")
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        self._process = Process(
            "postgres",
            [
                *(self._binaries / "postgres", "-D", self._directory / "data", "-p", str(self.port)),
                *("-c", f"unix_socket_directories={self._directory}", *options),
            ],
            log=self._directory / "log",
            env=clean_environment(variables),
            cwd=self._directory,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
        )
        wait_until(self._is_ready, timeout_s=60, what="Postgres accepts connections")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def create_database(self, name: str) -> str:
        """Create the empty database *name* and return its SQLAlchemy URL."""
        self._run("createdb", name)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop *name*, cutting whoever is still connected."""
        self._run("dropdb", "--force", "--if-exists", name)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg2://{USER}:{self._password}@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        if self._process is not None:
            # SIGINT is Postgres's "fast" stop: sessions are cut, shared memory is given back.
            self._process.stop(signal.SIGINT, timeout_s=20)
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> PostgresServer:
        return self if self._process is not None else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        assert self._process is not None
        if not self._process.is_running():
            raise RuntimeError(f"Postgres ended at once\n{self._process.tail()}")
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
        RuntimeError: it can't be installed; a person has to.
    """
    install("postgresql")
    found = find_binaries()
    if found is None:
        raise RuntimeError("apt-get installed postgresql, yet /usr/lib/postgresql/*/bin/initdb is missing")
    return found


def _version(text: str) -> int:
    return int(re.sub(r"\D.*", "", text) or 0)


def main() -> int:
    """Run a server until Ctrl-C; print its URL. With `--install`, only see to it that the programs are there."""
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
