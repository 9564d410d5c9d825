"""One runtime that central sends: its phase, its launcher and its test."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import anyio
from airflow_remote_protocol.messages import MAX_SHORT_TEXT, HeldRuntime, RuntimePhase, RuntimeRef

from airflow_remote_worker.jobs.launcher import Launcher
from airflow_remote_worker.jobs.runtime import RuntimeKeeper


class Place(NamedTuple):
    """Where a runtime's processes write: its zygote's log, and the directory of its canary."""

    zygote_log: Path
    canary: Path


@dataclass(eq=False)
class SentRuntime:
    """A runtime that is wanted, or still serves until its successor is ready."""

    ref: RuntimeRef
    phase: RuntimePhase = RuntimePhase.PREPARING
    detail: str = ""
    """What is being done, or what is wrong."""
    launcher: Launcher | None = None
    keeper: RuntimeKeeper | None = None
    tested: anyio.Event = field(default_factory=anyio.Event)
    """The first canary has ended."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def digest(self) -> str:
        return self.ref.tree.digest

    @property
    def text(self) -> str:
        return f"{self.ref.name} {self.ref.serial}"

    def held(self) -> HeldRuntime:
        found = self.keeper.found if self.keeper else None
        if self.keeper is None or found is None:
            return HeldRuntime(self.digest, self.phase, detail=self.detail[:MAX_SHORT_TEXT])
        if found.trouble:
            return HeldRuntime(self.digest, RuntimePhase.FAILED, detail=found.trouble[:MAX_SHORT_TEXT])
        # Jobs that fail before they begin may have another cause than the runtime: not failed, but not ready either.
        phase = RuntimePhase.PREPARING if self.keeper.doubt else RuntimePhase.READY
        return HeldRuntime(self.digest, phase, found.airflow, found.task_sdk, found.python, self.keeper.doubt[:MAX_SHORT_TEXT])
