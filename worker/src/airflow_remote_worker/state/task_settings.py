"""Central's Airflow settings for tasks on this worker: checked, stored on disk, and passed to the code that starts processes.

They are on disk so that the first process after a start has them before central answers. The site's own values override them;
:mod:`..shim.task_settings` does that where tasks start, because it needs the runtime's configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
from airflow_remote_protocol.messages import TaskSettings
from airflow_remote_protocol.task_settings import OPTIONS, compute_revision, filter_usable

from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.state.files import read, store

log = logging.getLogger(__name__)


class TaskSettingsKeeper:
    """The settings at *path*. *use* is called with the values (by `section.option`) whenever they change."""

    def __init__(self, path: Path, use: Callable[[Mapping[str, str]], None]) -> None:
        self.revision = ""
        """Central's name for the settings that it sent last; empty: it has sent nothing."""
        self.mark = ""
        """Changes whenever a value that tasks get changes."""
        self.known = anyio.Event()
        """Set once there are settings."""
        self._path = path
        self._use = use
        self._values: dict[str, str] = {}

    def load(self) -> None:
        """Use the settings that an earlier daemon stored. Unreadable ones count as missing: central sends them again."""
        try:
            self._apply(read(TaskSettings, self._path))
        except FileNotFoundError:
            pass
        except Damaged as error:
            log.warning("%s; central sends its settings again", error)

    def receive(self, settings: TaskSettings) -> None:
        """Use *settings* for every process that starts from now on."""
        before = self._values
        self._apply(settings)
        changed = sorted(name for name in {*before, *self._values} if before.get(name) != self._values.get(name))
        if before and changed:
            log.info("central's settings for tasks have changed (%s); jobs that start from now on use them", ", ".join(changed))
        try:
            store(self._path, settings)
        except OSError as error:
            log.warning("%s can't be stored: %s; after a restart the first jobs may start with older settings", self._path, error)

    def _apply(self, settings: TaskSettings) -> None:
        self.revision = settings.revision
        self._values = filter_usable(settings.values)
        for name in settings.values.keys() - self._values.keys():
            if name in OPTIONS:  # unknown names come from a newer central
                log.warning("central's setting %s has a value that can't be used here; tasks use the site's own value", name)
        self.mark = compute_revision(self._values)
        self._use(self._values)
        self.known.set()
