"""Where the daemon stands: serving → draining → detaching. Knows the moves and their reasons; does none of the work."""

from __future__ import annotations

from enum import IntEnum

import anyio

EXIT_OK = 0
EXIT_FAILED = 1
"""Something broke; a restart may help."""
EXIT_REFUSED = 3
"""Central will not have this worker; a restart won't help (systemd: `RestartPreventExitStatus=3`)."""


class Phase(IntEnum):
    """Only ever rises."""

    SERVING = 0
    DRAINING = 1
    """Takes no offers; ends when the last job is reported, or at the drain timeout."""
    DETACHING = 2
    """The daemon goes; the jobs it started live on and are adopted by the next start."""


class Lifecycle:
    """The daemon's phase, why it is there, and with what code the process will exit."""

    def __init__(self) -> None:
        self.phase = Phase.SERVING
        self.reason = ""
        self.exit_code = EXIT_OK
        self.draining = anyio.Event()
        self.detaching = anyio.Event()
        self.restarts = False
        """The process goes on as a new daemon, with the same arguments."""
        self.gives_credential_back = False
        """That central refuses it from now on is no news: the open poll hears of it before we hear that it was taken."""

    def drain(self, reason: str) -> None:
        """Take no more work. Nothing changes if that is so already."""
        if self.phase < Phase.DRAINING:
            self.phase, self.reason = Phase.DRAINING, reason
            self.draining.set()

    def detach(self, reason: str, *, exit_code: int = EXIT_OK) -> None:
        """Go at once and leave the jobs running. The first reason stands."""
        if self.gives_credential_back and exit_code == EXIT_REFUSED:
            return
        if self.phase < Phase.DETACHING:
            self.phase, self.reason, self.exit_code = Phase.DETACHING, reason, exit_code
            self.draining.set()
            self.detaching.set()

    def restart(self, reason: str) -> None:
        """Detach and start anew. Whoever is on the way out stays on it."""
        if self.phase is Phase.SERVING:
            self.restarts = True
            self.detach(reason)

    def hear_signal(self, name: str) -> None:
        """SIGTERM and the first SIGINT drain; a second of either detaches."""
        if self.phase is Phase.SERVING:
            self.drain(f"{name} received")
        else:
            self.detach(f"a second signal ({name}) received")
