"""Starts shims in the runtime: through its zygote, or each in a fresh interpreter.

It does not depend on offers, logs or central.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import anyio
import psutil

from airflow_remote_worker import shim, system
from airflow_remote_worker.jobs.process import CannotHost, keep_child, record, start
from airflow_remote_worker.jobs.zygote import Zygote, ZygoteDied
from airflow_remote_worker.local import frames, job_files
from airflow_remote_worker.state.spool import ShimRecord

log = logging.getLogger(__name__)


LAUNCHER = Path(shim.__file__).parent / "launch.py"


FAILURES_BEFORE_HOSTING = 3
"""After so many consecutive deaths of the zygote, the job is started in a fresh interpreter instead."""


KEPT_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SYSTEMROOT", "USERNAME", "USERPROFILE", "TEMP", "TMP"),
    }
)


def scrub_environment(
    environ: Mapping[str, str], *, python: Path, airflow_home: Path, extra: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment for tasks: *extra*, and a short allow-list of ours, so that no secret of the site leaks.

    The programs of the runtime at *python* come first in the PATH, as in an activated environment, unless *extra* has a PATH.
    """
    kept = {name: value for name, value in environ.items() if name in KEPT_VARIABLES or name.startswith("LC_")}
    kept["PATH"] = os.pathsep.join((str(python.parent), kept.get("PATH", os.defpath)))
    return {**kept, "AIRFLOW_HOME": str(airflow_home), **extra}


class Launcher:
    """Starts shims in the runtime at *python*: through a zygote, if the system can fork."""

    def __init__(
        self,
        python: Path | None,
        *,
        env: dict[str, str],
        home: Path,
        zygote_log: Path,
        fork: bool = system.CAN_FORK,
        launcher: Path | None = None,
    ) -> None:
        self.runtime: frames.Ready | None = None
        """The zygote's report about its runtime."""
        self.python = python
        self._env = env
        self._home = home
        self._zygote_log = zygote_log
        self._fork = fork
        self._launcher = launcher or LAUNCHER
        self._zygote: Zygote | None = None
        self._starting = anyio.Lock()
        self._task_settings: dict[str, str] = {}
        self._has_outdated_zygote = anyio.Event()
        self._is_closed = False

    def use_task_settings(self, values: Mapping[str, str]) -> None:
        """Start every later process with these settings of central (by `section.option`); running processes keep theirs.

        Airflow reads most settings while it is imported, so a zygote that was started with other settings is replaced.
        """
        if dict(values) != self._task_settings:
            self._task_settings = dict(values)
            self._has_outdated_zygote.set()

    @property
    def has_zygote(self) -> bool:
        return self._zygote is not None and not self._zygote.has_ended

    async def wait_for_zygote_end(self) -> None:
        """Return when the zygote, if any, has ended."""
        if self._zygote is not None and not self._zygote.has_ended:
            zygote = self._zygote
            await zygote.watch()
            log.warning("the zygote (pid %s) ended; starting another one", zygote.pid)

    async def retire(self) -> None:
        """End the zygote once it has answered. Its shims live on, and the next start uses a new zygote."""
        if self._zygote:
            await self._zygote.retire()

    def close(self) -> None:
        """End the zygote at once. What is started later gets a fresh interpreter each."""
        self._is_closed = True
        if self._zygote:
            self._zygote.close()

    async def wait_for_outdated_zygote(self) -> None:
        """Return when central's settings have changed, so that the next start will replace the zygote."""
        await self._has_outdated_zygote.wait()

    async def launch(self, job_dir: Path) -> ShimRecord:
        """Start the shim of the job in *job_dir*; return its process.

        Raises:
            CannotHost: nothing was started.
            StartUncertain: a process may have been started.
        """
        for _ in range(FAILURES_BEFORE_HOSTING if self._fork else 0):
            if self._is_closed:
                break
            try:
                zygote = await self._ready_zygote()
                return record(await zygote.spawn(job_dir))
            except ZygoteDied as error:
                log.warning("the zygote did not come up: %s", error)
        return record(self._host(job_dir))

    def _host(self, job_dir: Path) -> frames.Spawned:
        python = self._interpreter()
        argv = [str(python), str(self._launcher), "host", str(job_dir)]
        process = start(argv, env=self._environment(), output=job_dir / "shim.log", cwd=self._home)
        keep_child(process)
        return frames.Spawned(job_dir=str(job_dir), pid=process.pid, start_time=_start_time(process.pid))

    async def _ready_zygote(self) -> Zygote:
        """Raises: CannotHost, ZygoteDied."""
        async with self._starting:
            if self._has_outdated_zygote.is_set():
                self._has_outdated_zygote = anyio.Event()
                if self._zygote is not None:
                    await self._zygote.retire()
            if self._zygote is None or self._zygote.has_ended:
                self.runtime = None
                self._zygote = Zygote.start(
                    self._interpreter(),
                    launcher=self._launcher,
                    env=self._environment(),
                    home=self._home,
                    output=self._zygote_log,
                )
            zygote = self._zygote
            try:
                self.runtime = await zygote.ready()
            except CannotHost:
                zygote.close()
                raise
            return zygote

    def _environment(self) -> dict[str, str]:
        return {**self._env, job_files.TASK_SETTINGS: json.dumps(self._task_settings)} if self._task_settings else self._env

    def _interpreter(self) -> Path:
        if self.python is None:
            raise CannotHost("no runtime is set; set runtime.python to the Python of an environment with the Airflow Task SDK")
        return self.python


def _start_time(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0
