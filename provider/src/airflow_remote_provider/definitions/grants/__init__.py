"""Grants: the rights of a job beyond its own task instance. Values only, without database and Airflow.

A grant comes from the task's definition (:mod:`.inferred`), its `executor_config` (:mod:`.declared`) and the policy of its queue
(:mod:`...ledger.queue_policy`). :mod:`...api.gateway.rules` decides which calls need one.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase


class GrantKind(str, Enum):
    """The kind of thing that a grant names. The value is the key in `executor_config["remote"]` and the option of the CLI."""

    CONNECTIONS = "connections"
    VARIABLES = "variables"
    WRITES = "writes"
    """Variables to set and delete."""
    XCOMS_OF = "xcoms_of"
    """Dags whose XComs can be read, in all their runs. XComs of the job's own Dag run need no grant."""
    DAGS = "dags"
    """Dags whose runs can be queried. Queries about the job's own Dag need no grant."""
    TRIGGER_DAGS = "trigger_dags"
    """Dags whose runs can be triggered and cleared, including the job's own Dag."""
    ASSETS = "assets"
    """Assets (by name or URI) and aliases whose definition, events and state can be read. Inlets and outlets are inferred."""
    ASSET_WRITES = "asset_writes"
    """Assets and aliases for which events can be emitted and state can be set and deleted. Outlets are inferred."""
    CODE_ON_CENTRAL = "code_on_central"
    """Trigger classes that central's own triggerer, instead of a worker, runs for tasks of a queue. Only an administrator can
    name them, per queue, and each by its whole import path."""

    @property
    def noun(self) -> str:
        return NOUNS[self]


NOUNS = {
    GrantKind.CONNECTIONS: "connection",
    GrantKind.VARIABLES: "variable",
    GrantKind.WRITES: "setting or deleting the variable",
    GrantKind.XCOMS_OF: "XComs beyond its own Dag run, of the Dag",
    GrantKind.DAGS: "runs of the Dag",
    GrantKind.TRIGGER_DAGS: "triggering or clearing runs of the Dag",
    GrantKind.ASSETS: "asset",
    GrantKind.ASSET_WRITES: "emitting events for, or changing the state of, the asset",
    GrantKind.CODE_ON_CENTRAL: "running on central the trigger",
}
DECLARED = tuple(kind for kind in GrantKind if kind is not GrantKind.CODE_ON_CENTRAL)
"""Kinds that the author of a Dag can declare for a task."""
SECRET = frozenset({GrantKind.CONNECTIONS, GrantKind.VARIABLES})
"""Kinds of which every read is recorded, not only denied ones."""


@dataclass(frozen=True)
class Ask:
    """The right that a call needs: a grant for one of *names*, or, when *listing*, for all names that begin with the first."""

    kind: GrantKind
    names: tuple[str, ...]
    listing: bool = False
    run: str = ""
    """Only for :attr:`GrantKind.DAGS`: the single run that the call is about, if any."""

    @property
    def name(self) -> str:
        """The name to show."""
        return self.names[0] + ("*" if self.listing else "")


@dataclass(frozen=True)
class Skip:
    """Task instances of the job's own Dag run that it skips. No grant allows it: each must be downstream of the job's task."""

    tasks: frozenset[tuple[str, int]]
    """Task id and map index; -1 for a task that is not mapped."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task_id for task_id, _ in self.tasks)


@dataclass(frozen=True)
class Grant:
    """Globs by kind. Matching is case-sensitive; `*` and `?` also match a slash."""

    globs: Mapping[GrantKind, frozenset[str]] = field(default_factory=dict)

    def allows(self, ask: Ask) -> bool:
        globs = self.globs.get(ask.kind, frozenset())
        if ask.listing:
            return any(_covers(pattern, ask.names[0]) for pattern in globs)
        return any(fnmatchcase(name, pattern) for pattern in globs for name in ask.names)

    def __or__(self, other: Grant) -> Grant:
        kinds = {*self.globs, *other.globs}
        return Grant({kind: self.globs.get(kind, frozenset()) | other.globs.get(kind, frozenset()) for kind in kinds})

    def __bool__(self) -> bool:
        return any(self.globs.values())


def named(names: Mapping[GrantKind, Iterable[str]]) -> Grant:
    """Return the grant of exactly these names, even if they contain wildcard characters."""
    return Grant({kind: frozenset(map(glob.escape, some)) for kind, some in names.items()})


def _covers(pattern: str, prefix: str) -> bool:
    """Return whether *pattern* grants every name that begins with *prefix*."""
    stem = pattern.rstrip("*")
    return pattern != stem and not any(special in stem for special in "*?[") and prefix.startswith(stem)
