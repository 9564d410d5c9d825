"""What one job may read and do beyond its own task instance. Values only: no database, no Airflow, no opinion on who decides.

Where a grant comes from: :mod:`.inferred` (the task's definition), :mod:`.declared` (its `executor_config`) and the policy of its
queue (:mod:`..ledger.queue_policy`). What needs one: :mod:`..api.rules`.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase


class GrantKind(str, Enum):
    """What a name in a grant is the name of. The value is the key in `executor_config["remote"]` and the option of the CLI."""

    CONNECTIONS = "connections"
    VARIABLES = "variables"
    WRITES = "writes"
    """Variables to set and to delete."""
    XCOMS_OF = "xcoms_of"
    """Dags, of any of whose runs XComs may be read. Those of the job's own Dag run need no grant."""
    DAGS = "dags"
    """Dags about whose runs to ask. Asking about the job's own Dag needs no grant."""
    TRIGGER_DAGS = "trigger_dags"
    """Dags whose runs to trigger and to clear, the job's own Dag included."""
    ASSETS = "assets"
    """Assets (by name or URI) and aliases to read: definition, events, state. The task's inlets and outlets are inferred."""
    ASSET_WRITES = "asset_writes"
    """Assets and aliases to emit events for, and to set and delete state of. The task's outlets are inferred."""
    CODE_ON_CENTRAL = "code_on_central"
    """Trigger classes that central's own triggerer runs for tasks of a queue, instead of a worker. Only an administrator can name
    them, for a queue, and each by its whole import path."""

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
"""What the author of a Dag may declare for a task."""
SECRET = frozenset({GrantKind.CONNECTIONS, GrantKind.VARIABLES})
"""Every read of these is recorded, not only the denied ones."""


@dataclass(frozen=True)
class Ask:
    """What a call needs a grant for: any one of *names*; when *listing*, all names that begin with it."""

    kind: GrantKind
    names: tuple[str, ...]
    listing: bool = False
    run: str = ""
    """Of :attr:`Kind.DAGS`: the one run that it is about, if it is about one."""

    @property
    def name(self) -> str:
        """The name to speak of."""
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
    """Return the grant of exactly these names, whatever characters they have."""
    return Grant({kind: frozenset(map(glob.escape, some)) for kind, some in names.items()})


def _covers(pattern: str, prefix: str) -> bool:
    """Whether *pattern* grants every name that begins with *prefix*."""
    stem = pattern.rstrip("*")
    return pattern != stem and not any(special in stem for special in "*?[") and prefix.startswith(stem)
