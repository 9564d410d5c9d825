"""The daemon's phase: serving → draining → detaching. Keeps the phase and its reason; other modules do the work."""

from __future__ import annotations

from enum import IntEnum

import anyio

EXIT_OK = 0
EXIT_FAILED = 1
"""An error; a restart may help."""
EXIT_REFUSED = 3
"""Central refuses this worker; a restart won't help (systemd: `RestartPreventExitStatus=3`)."""


class Phase(IntEnum):
    """Phases only increase."""

    SERVING = 0
    DRAINING = 1
    """The daemon takes no offers and ends when the last job is reported, or at the drain timeout."""
    DETACHING = 2
    """The daemon ends. Its jobs run on, and the next start adopts them."""


class Lifecycle:
    """The daemon's phase, the reason for it, and the exit code of the process."""

    def __init__(self) -> None:
        self.phase = Phase.SERVING
        self.reason = ""
        self.exit_code = EXIT_OK
        self.draining = anyio.Event()
        self.detaching = anyio.Event()
        self.restarts = False
        """The process executes itself again, with the same arguments."""
        self.is_leaving = False
        """The credential is being given back. The open poll may be refused before `leave` is answered; that is no error."""

    def drain(self, reason: str) -> None:
        """Take no more work; do nothing if already draining or detaching."""
        if self.phase < Phase.DRAINING:
            self.phase, self.reason = Phase.DRAINING, reason
            self.draining.set()

    def detach(self, reason: str, *, exit_code: int = EXIT_OK) -> None:
        """End the daemon at once and leave the jobs running. The first reason is kept."""
        if self.is_leaving and exit_code == EXIT_REFUSED:
            return
        if self.phase < Phase.DETACHING:
            self.phase, self.reason, self.exit_code = Phase.DETACHING, reason, exit_code
            self.draining.set()
            self.detaching.set()

    def restart(self, reason: str) -> None:
        """Detach and start again. Do nothing if the daemon is already draining or ending."""
        if self.phase is Phase.SERVING:
            self.restarts = True
            self.detach(reason)

    def on_signal(self, name: str) -> None:
        """Drain on the first SIGTERM or SIGINT; detach on a second one."""
        if self.phase is Phase.SERVING:
            self.drain(f"{name} received")
        else:
            self.detach(f"a second signal ({name}) received")
