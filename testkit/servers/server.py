"""The base class of server programs that tests start: up when `start()` returns, gone after `stop()`.

Owns the directory, the process, the user that it runs as and the wait for its start. Each server defines its own command and its
check for being up.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from testkit.processes import Process, clean_environment, wait_until
from testkit.servers.debian import server_owner

if TYPE_CHECKING:
    from typing_extensions import Self


class Server(ABC):
    """One server with its own directory. `start()` can be called again after `stop()`."""

    name: ClassVar[str]
    """The name of its process and of its log, `<name>.out` in its directory."""
    owner: ClassVar[str | None] = None
    """The user that it runs as when we are root, if it refuses to run as root."""
    up_within_s: ClassVar[float] = 30
    stop_signal: ClassVar[int] = signal.SIGTERM
    stop_within_s: ClassVar[float] = 20

    def __init__(self, home: Path | None = None) -> None:
        """Without a *home*, each start creates one in the system's temporary directory, which `stop()` removes.

        A server with an owner needs that: other users have no access to pytest's directories and perhaps not to the source tree.
        """
        self._given_home = home
        self._home: Path | None = None
        self._process: Process | None = None

    @abstractmethod
    def start(self) -> Self:
        """Prepare what it needs and launch it.

        Raises:
            RuntimeError: a program is missing and can't be installed, or the server doesn't start; the text says why.
            TimeoutError: it doesn't answer.
        """

    @abstractmethod
    def _is_up(self) -> bool:
        """Return whether it answers. Called only while it runs."""

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(self.stop_signal, timeout_s=self.stop_within_s)
            self._process = None
        if self._home is not None and self._given_home is None:
            shutil.rmtree(self._home, ignore_errors=True)
        self._home = None

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # -- parts of `start()`

    def _make_home(self) -> Path:
        if self._given_home is None:
            self._home = Path(tempfile.mkdtemp(prefix=f"remote-{self.name}-"))
        else:
            self._home = self._given_home
            self._home.mkdir(parents=True, exist_ok=True)
        return self._home

    def _give_home_away(self) -> None:
        """Make the user that it runs as the owner of its directory and of the files directly in it."""
        user, group = self._ids()
        if self._home is not None and user is not None and group is not None:
            for path in (self._home, *self._home.iterdir()):
                os.chown(path, user, group)

    def _run_first(self, command: Sequence[str | Path]) -> None:
        """Run a command that prepares the start, as the user that the server runs as."""
        user, group = self._ids()
        done = subprocess.run(
            command,
            env=clean_environment(),
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )
        if done.returncode != 0:
            raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")

    def _launch(self, command: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> None:
        """Start the process, with *variables* in its environment; return when it is up."""
        assert self._home is not None
        user, group = self._ids()
        process = self._process = Process(
            self.name,
            command,
            log=self._home / f"{self.name}.out",
            env=clean_environment(variables),
            cwd=self._home,
            user=user,
            group=group,
        )

        def is_up() -> bool:
            if not process.is_running():
                raise RuntimeError(f"{self.name} ended at once\n{process.tail()}")
            return self._is_up()

        wait_until(is_up, timeout_s=self.up_within_s, what=f"{self.name} answers")

    def _ids(self) -> tuple[int, int] | tuple[None, None]:
        """Return the user and the group that it runs as; None for our own."""
        found = None if self.owner is None else server_owner(self.owner)
        return (None, None) if found is None else (found.pw_uid, found.pw_gid)
