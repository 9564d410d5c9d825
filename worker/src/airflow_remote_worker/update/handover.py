"""The start of `run`: which release runs here, and the trial of a new one (ADR 0044).

The process that an operator or systemd started stays the same: it executes the current release. A release on trial runs as its
child, which ends as soon as it has reached central; then the process executes it. So whatever an unproven release does, a proven
one still runs and goes on.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from airflow_remote_worker import system
from airflow_remote_worker.code.interpreter import find_own
from airflow_remote_worker.config import Config
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.update import record as records
from airflow_remote_worker.update.guard import run_trial
from airflow_remote_worker.update.record import MAX_TRIES, Release
from airflow_remote_worker.update.releases import Releases, running_tree
from airflow_remote_worker.update.trial import TRIAL

log = logging.getLogger(__name__)


def begin(config: Config, state: State, arguments: Sequence[str]) -> int | None:
    """Execute the current release if it isn't this one, and try a new one if there is one.

    Args:
        arguments: the command line without the program; the releases get the same.

    Returns:
        The exit code if the worker was stopped during a trial; None: this process is to run the daemon.

    Raises:
        StateInUse: another process tries a release in this directory.
    """
    if not system.CAN_FORK or TRIAL in os.environ or not state.releases.exists():
        return None
    releases = Releases(config, state, find_own())
    _execute_current(releases, arguments)
    if releases.load().on_trial is None:
        return None
    with releases.locked():
        code = _try(config, releases, arguments)
    if code is None:
        _execute_current(releases, arguments)
    return code


def _execute_current(releases: Releases, arguments: Sequence[str]) -> None:
    """Become the current release, if this process runs another: systemd, a container's init or a terminal watch this process."""
    current = releases.load().current
    if current is None or current.tree == running_tree():
        return
    trouble = releases.trouble_of(current.tree)
    if not trouble:
        command = releases.command(current.tree, arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            os.execv(command[0], command)
        except OSError as error:
            trouble = str(error)
    log.error("%s can't be started: %s; the one in %s runs instead", current.text, trouble, sys.prefix)


def _try(config: Config, releases: Releases, arguments: Sequence[str]) -> int | None:
    """Run the release on trial until it is proven or given up. Return the exit code if this process was asked to end."""
    while release := (record := releases.load()).on_trial:
        reason = _obstacle(releases, release, record.tries)
        if not reason:
            releases.store(records.note_try(record))
            log.info("%s is tried now", release.text)
            end = run_trial(releases.command(release.tree, arguments), within_s=config.update.prove_within_s)
            if end.was_stopped:
                return end.code
            reason, record = end.reason, releases.load()
        if record.on_trial and reason:
            log.error("%s was given up: %s", release.text, reason)
            releases.store(records.give_up(record, reason))
    return None


def _obstacle(releases: Releases, release: Release, tries: int) -> str:
    """Return why the release is not tried; empty: it is."""
    if tries >= MAX_TRIES:
        return f"{tries} trials ended without a result: this machine restarted, or central could not be reached"
    return releases.trouble_of(release.tree)
