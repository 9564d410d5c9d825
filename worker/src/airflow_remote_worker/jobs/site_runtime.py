"""The runtime that the site has installed itself (`runtime.python`): all jobs of this worker run in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow_remote_protocol.messages import MAX_SHORT_TEXT, HeldRuntime, Offer, Runtime, Runtimes

from airflow_remote_worker.jobs.launcher import Launcher
from airflow_remote_worker.jobs.runtime import RuntimeKeeper
from airflow_remote_worker.lease import SITE
from airflow_remote_worker.state.spool import ShimRecord


class SiteRuntime:
    """The interface of :class:`~.runtimes.SentRuntimes`, for one runtime that is always here."""

    def __init__(self, launcher: Launcher, keeper: RuntimeKeeper, zygote_log: Path) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.launcher = launcher
        self.keeper = keeper
        self._zygote_log = zygote_log
        keeper.on_change = lambda: self.on_change()

    async def run(self) -> None:
        """Keep the runtime tested, until cancelled."""
        await self.keeper.run()

    async def launch(self, job_dir: Path, *, runtime: str = SITE) -> ShimRecord:
        """Start the shim of the job in *job_dir*. Raises: CannotHost, StartUncertain."""
        return await self.launcher.launch(job_dir)

    async def ensure(self, offer: Offer, note: Callable[[str], None]) -> Path | None:
        return None

    def use_task_settings(self, values: Mapping[str, str]) -> None:
        """Start every later process with these settings of central."""
        self.launcher.use_task_settings(values)

    def note_begun(self, runtime: str) -> None:
        """Note that the own code of a job in *runtime* has begun."""
        self.keeper.note_begun()

    def note_failure(self, runtime: str, reason: str) -> None:
        """Note that a job in *runtime* has failed before its own code began."""
        self.keeper.note_failure(reason)

    def on_session(self, *, supported: bool) -> None:
        """Central's list of runtimes does not concern this worker."""

    def receive(self, listed: Runtimes) -> None:
        """Central sends no list to this worker."""

    def tidy(self) -> None:
        """This worker holds no environment of central's."""

    @property
    def unfit(self) -> str:
        """Why no job may be taken now; empty: jobs may be taken."""
        return self.keeper.unfit

    @property
    def trouble(self) -> str:
        """Why no job can run here, for users; empty while jobs can, and until the first canary has ended."""
        return self.keeper.trouble

    @property
    def ready(self) -> frozenset[str]:
        """The runtimes in which jobs can run."""
        return frozenset({SITE})

    @property
    def on_probation(self) -> frozenset[str]:
        """Those in which one job at a time is taken."""
        return frozenset({SITE}) if self.keeper.on_probation else frozenset()

    def held(self) -> list[HeldRuntime]:
        """Return the runtimes from central, for central."""
        return []

    def report(self) -> Runtime | None:
        """Return the site's runtime, for central; None: it has not been tested yet."""
        found = self.keeper.found
        if found is None:
            return None
        trouble = self.keeper.trouble[:MAX_SHORT_TEXT]
        return Runtime(airflow=found.airflow, task_sdk=found.task_sdk, python=found.python, trouble=trouble)

    def describe(self) -> dict[str, Any]:
        """Return the keys about the runtime in `status.json`."""
        zygote = self.launcher.runtime
        return {
            "runtime": {"python": zygote.python, "airflow": zygote.airflow, "pid": zygote.pid} if zygote else None,
            "runtime_tried_at": self.keeper.tried_at,
            "runtimes": None,
        }

    def logs(self) -> list[Path]:
        """Return the logs of zygotes."""
        return [self._zygote_log]
