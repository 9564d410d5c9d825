"""The fake central's runtimes and releases: which ones a worker should have, and which runtime its jobs get.

One name per queue. Every worker that takes runtimes should have the newest serial; the one before is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from airflow_remote_protocol.messages import HeldRuntime, RuntimePhase, RuntimeRef, Runtimes, TreeRef, WantedRelease


@dataclass
class RuntimeBook:
    """The runtimes of all queues."""

    _names: dict[str, str] = field(default_factory=dict)
    """By queue."""
    _editions: dict[str, list[RuntimeRef]] = field(default_factory=dict)
    """By name, the oldest first."""

    def roll(self, queue: str, tree: TreeRef, name: str) -> RuntimeRef:
        """Add the next serial of *name*, which *queue* uses from now on."""
        self._names[queue] = name
        editions = self._editions.setdefault(name, [])
        editions.append(RuntimeRef(name, len(editions) + 1, tree))
        return editions[-1]

    def roll_back(self, name: str) -> RuntimeRef:
        """Add a serial with the tree of the one before."""
        editions = self._editions[name]
        editions.append(RuntimeRef(name, len(editions) + 1, editions[-2].tree))
        return editions[-1]

    def of(self, queues: Iterable[str]) -> Runtimes:
        """Return the list for a worker of *queues*."""
        names = sorted({self._names[queue] for queue in queues if queue in self._names})
        wanted = [self._editions[name][-1] for name in names]
        kept = [self._editions[name][-2].tree.digest for name in names if len(self._editions[name]) > 1]
        kept = [digest for digest in kept if digest not in {ref.tree.digest for ref in wanted}]
        text = repr([(ref.name, ref.serial, ref.tree.digest) for ref in wanted])
        return Runtimes(hashlib.sha256(text.encode()).hexdigest()[:16] if wanted else "", wanted, kept)

    def choose(self, queue: str, held: Sequence[HeldRuntime]) -> RuntimeRef | None:
        """Return the runtime for a job of *queue*: the newest serial that the worker has ready."""
        ready = {runtime.tree for runtime in held if runtime.phase is RuntimePhase.READY}
        editions = self._editions.get(self._names.get(queue, ""), [])
        return next((ref for ref in reversed(editions) if ref.tree.digest in ready), None)


@dataclass
class ReleaseBook:
    """The releases of the worker's own software. Every worker that takes releases should run the newest serial."""

    newest: WantedRelease | None = None
    is_withdrawn: bool = False

    def roll(self, tree: TreeRef, version: str) -> WantedRelease:
        """Add the next serial."""
        self.is_withdrawn = False
        self.newest = WantedRelease(version, self.newest.serial + 1 if self.newest else 1, tree)
        return self.newest
