"""Makes runtimes, and the worker's release, when central's versions or the platforms of the fleet change; rolls out in stages.

One API process of the fleet does it. The build is a process of its own, at low priority. Its output goes to the log, and its
failure is shown as the runtime's trouble, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties.publishing import LEAVE_S, in_daemon_thread
from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.ledger import duty, releases, rollouts, runtimes, staged_rollouts
from airflow_remote_provider.ledger.rollouts import RELEASES, Kind
from airflow_remote_provider.ledger.trees import RELEASE
from airflow_remote_provider.packing.releases import built_with as release_built_with
from airflow_remote_provider.packing.releases import usable
from airflow_remote_provider.packing.runtimes.errors import without_addresses
from airflow_remote_provider.packing.runtimes.following import Due, find_due, find_due_release, wait_s
from airflow_remote_provider.packing.runtimes.requirements import built_with
from airflow_remote_provider.settings import Settings

log = logging.getLogger(__name__)

DUTY = "runtimes"
ACTION = "follow central's versions with runtimes and the worker's release"
EVERY_S = 60.0
DUTY_LASTS = timedelta(seconds=200)
"""Two rounds may fail before another process takes over."""
LONGEST_BUILD_S = 2 * 3600.0
END_S = 5.0
"""How long a build may take to end after a signal, before it is killed."""
NICE = 10


class Following:
    """The duty of `[remote] runtimes = follow`."""

    def __init__(
        self,
        settings: Settings,
        *,
        every_s: float = EVERY_S,
        longest_build_s: float = LONGEST_BUILD_S,
        command: Callable[[Kind, Due], list[str]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*command* returns the words that make what is due; default: those of :func:`build_command`."""
        self._settings = settings
        self._every_s = every_s
        self._longest_build_s = longest_build_s
        self._command = command or build_command
        self._monotonic = monotonic
        self._holder = str(uuid.uuid4())
        self._is_stopping = threading.Event()
        self._build: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None
        self._failures: dict[str, tuple[Due, int, float]] = {}
        """By what is built: the attempt that failed, how often in a row, and when to try again."""

    async def run(self) -> None:
        """Follow until cancelled. Return at once if this is switched off."""
        if self._settings.runtimes == "off":
            return
        try:
            while True:
                try:
                    await in_daemon_thread(self.run_round)
                except Exception as error:  # also a bug in this package: it must not end the API server
                    faults.report_failure(ACTION, error)
                else:
                    faults.report_success(ACTION)
                await asyncio.sleep(self._every_s)
        finally:
            self.stop()
            with suppress(Exception):  # else another process waits until the duty expires
                await asyncio.wait_for(asyncio.shield(in_daemon_thread(self._leave)), LEAVE_S)

    def run_round(self) -> None:
        """Widen rollouts, and start at most one build, if this process has the duty. Blocks for some statements only."""
        if not compat.in_transaction(partial(duty.take_duty, name=DUTY, holder=self._holder, lasts=DUTY_LASTS)):
            return
        silent_after = timedelta(seconds=self._settings.silent_after_seconds)
        for kind in compat.in_transaction(partial(staged_rollouts.widen, silent_after=silent_after)):
            log.info("The first workers use the newest serial of %s: it is rolled out to all", kind.text)
        if self._build is not None and self._build.is_alive():
            return
        for kind in compat.in_transaction(partial(staged_rollouts.begin_left, silent_after=silent_after)):
            log.info("The newest serial of %s is rolled out to the first workers", kind.text)
        found = self._find()
        if found is not None and not self._is_stopping.is_set():
            self._build = threading.Thread(target=self._run_build, args=found, name="remote-runtime", daemon=True)
            self._build.start()

    def stop(self) -> None:
        """End a build, which another process, or the next one, begins again."""
        self._is_stopping.set()
        child = self._child
        if child is not None and child.poll() is None:
            _signal(child, signal.SIGTERM)

    def _leave(self) -> None:
        """Give up the duty: central that is updated follows at once, not when the duty of the process before expires."""
        compat.in_transaction(partial(duty.drop_duties, names=[DUTY], holder=self._holder))

    def _find(self) -> tuple[Kind, Due] | None:
        """Return what to make now."""
        for kind, due in compat.in_transaction(_find_all):
            if due is None:
                self._failures.pop(kind.text, None)
                continue
            failed = self._failures.get(kind.text)
            if failed is None or failed[0] != due or self._monotonic() >= failed[2]:
                return kind, due
        return None

    def _run_build(self, kind: Kind, due: Due) -> None:
        """Run a build to its end; note its failure."""
        log.info("Building %s: %s", kind.text, due.reason)
        try:
            trouble = self._run_child(self._command(kind, due))
        except Exception as error:
            trouble = f"the build could not be run: {error}"
        if not trouble:
            self._failures.pop(kind.text, None)
            return
        if self._is_stopping.is_set():
            return
        before = self._failures.get(kind.text)
        failures = before[1] + 1 if before is not None and before[0] == due else 1
        again_s = wait_s(failures)
        self._failures[kind.text] = due, failures, self._monotonic() + again_s
        log.warning("Building %s failed: %s. It is tried again in %g min", kind.text, trouble, again_s / 60)
        try:
            compat.in_transaction(partial(rollouts.note_trouble, kind=kind, text=trouble))
        except Exception as error:
            faults.report_single_failure("note why a build failed", error)

    def _run_child(self, words: list[str]) -> str:
        """Run a command with its output in the log; return why it failed, empty if it did not."""
        environ = {key: value for key, value in os.environ.items() if key != "AIRFLOW_REMOTE_SERVER"}
        child = subprocess.Popen(
            words,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a signal to the API server's group must not end it half-way, and its own ends uv, too
        )
        self._child = child
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, child.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICE))
        timer = threading.Timer(self._longest_build_s, _end, (child,))
        timer.daemon = True
        timer.start()
        failed: list[str] = []
        try:
            assert child.stdout is not None
            for line in child.stdout:
                text = without_addresses(line.rstrip())
                if text:
                    log.info("build: %s", text)
                if ": not built: " in text and text not in failed:
                    failed.append(text)
            code = child.wait()
        finally:
            timer.cancel()
            self._child = None
        if code == 0:
            return ""
        if code < 0 and not self._is_stopping.is_set():
            return f"signal {-code} ended the build, which may take {self._longest_build_s:g} s; see the log of the API server"
        return "; ".join(failed) or f"the build ended with code {code}; see the log of the API server"


def _find_all(session: Session) -> list[tuple[Kind, Due | None]]:
    """Return what is due of each runtime, and of the release."""
    fleet, versions = runtimes.fleet_platforms(session), built_with()
    found = [(rollouts.of_runtime(one.name), find_due(one, fleet, versions)) for one in runtimes.list_all(session)]
    release = releases.get(session)
    if release is not None:
        platforms = [str(platform) for platform in usable(releases.fleet_platforms(session))]
        found.append((RELEASES, find_due_release(release, platforms, release_built_with())))
    return found


def build_command(kind: Kind, due: Due) -> list[str]:
    """Return the command that makes what is due, and rolls it out in stages."""
    version = [due.version] if due.version else []
    what = ["releases", "add", *version] if kind.kind == RELEASE else ["runtimes", "build", kind.name]
    platforms = [word for platform in due.platforms for word in ("--platform", platform)]
    return [sys.executable, "-m", "airflow", "remote", *what, "--roll", *platforms]


def _end(child: subprocess.Popen[str]) -> None:
    _signal(child, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(END_S)
    _signal(child, signal.SIGKILL)


def _signal(child: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(OSError):
        os.killpg(child.pid, number)
