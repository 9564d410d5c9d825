"""Decides which runtimes and which release of its software each worker is to have, and in which runtime a job may run.

Values in, values out: the same plan and the same worker give the same answer in every process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_remote_protocol.messages import MAX_RUNTIMES, ReleasePhase, RuntimePhase, RuntimeRef, TreeRef, WantedRelease
from airflow_remote_protocol.version import Capability

from airflow_remote_provider.definitions.needs import pairs_of

WORKER = "worker"
"""The name under which releases of the worker's software are stored."""
DEFAULT = "default"
"""The runtime of queues that name none."""
Version = tuple[str, str, datetime]
"""What a row of a plan is about (`runtime`, `queue` or `release`), its name, and when it was changed."""


@dataclass(frozen=True)
class Rollout:
    """Which serial of a runtime is rolled out, and to whom. As the columns of :class:`..models.RuntimeRow`."""

    serial: int
    previous: int = 0
    percent: int = 100
    labels: str | None = None
    halted: str = ""
    built: int = 0


Editions = Mapping[int, Mapping[str, TreeRef]]
"""The trees of one runtime, by serial and platform."""


@dataclass(frozen=True)
class ReleasePlan:
    """All that decides about releases of the worker, except the workers."""

    rollout: Rollout | None = None
    """None: nothing was ever added."""
    editions: Editions = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the software, by the digest of the tree."""


@dataclass(frozen=True)
class Plan:
    """All that decides about runtimes and releases, except the workers."""

    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    editions: Mapping[str, Editions] = field(default_factory=dict)
    queues: Mapping[str, str] = field(default_factory=dict)
    """Names of runtimes by queue; a queue that is not listed has :data:`DEFAULT`."""
    releases: ReleasePlan = ReleasePlan()
    versions: frozenset[Version] = frozenset()
    """Of the rows that it was made from."""

    def name_for(self, queue: str) -> str:
        return self.queues.get(queue, DEFAULT)


@dataclass(frozen=True)
class Host:
    """A worker that takes runtimes, or releases, from central."""

    worker_id: str
    queues: tuple[str, ...]
    platform: str
    """Empty: it has reported none."""
    labels: Mapping[str, str] = field(default_factory=dict)
    ready: frozenset[str] = frozenset()
    """Digests of the runtimes that it has ready and that suit this central; or of the release that it runs."""
    asked: int = 0
    """The serial of a release that a user wants it to have now, whatever the rollout's share; 0: none."""


@dataclass(frozen=True)
class Assignment:
    """What one worker is to have."""

    wanted: tuple[RuntimeRef, ...] = ()
    kept: tuple[str, ...] = ()
    """Digests of earlier trees that it keeps if it has them."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why it can have no runtime of a name, and what to do."""

    def wants(self, digest: str) -> bool:
        return any(ref.tree.digest == digest for ref in self.wanted)


def bucket(worker_id: str, name: str) -> int:
    """Return a number from 0 to 99: the worker is among the first N % for *name* if it is below N. It never changes."""
    digest = hashlib.sha256(f"{name}\n{worker_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100


def assign(plan: Plan, host: Host) -> Assignment:
    """Return the runtimes that *host* is to have: one for each name that its queues use, for its platform."""
    wanted: list[RuntimeRef] = []
    kept: list[str] = []
    missing: dict[str, str] = {}
    for name in _names(plan, host)[:MAX_RUNTIMES]:
        ref = choose(plan, host, name)
        if ref is None:
            missing[name] = _why_missing(plan, host, name)
            continue
        wanted.append(ref)
        kept += _kept(plan, host, ref)
    digests = {ref.tree.digest for ref in wanted}
    return Assignment(tuple(wanted), tuple(dict.fromkeys(one for one in kept if one not in digests))[:MAX_RUNTIMES], missing)


def choose(plan: Plan, host: Host, name: str) -> RuntimeRef | None:
    """Return the runtime of this name that *host* is to have; None: it can have none."""
    rollout = plan.rollouts.get(name)
    if rollout is None or not rollout.serial or not host.platform:
        return None
    rolled = _edition(plan, host, name, rollout.serial)
    if not rollout.previous or is_included(rollout, host, name, rolled):
        return rolled
    before = fallback(plan, host, name)
    if before is None and not rollout.halted:  # for this platform the rolled serial is the first
        return rolled
    return before


def fallback(plan: Plan, host: Host, name: str) -> RuntimeRef | None:
    """Return the runtime of this name that *host* is to have when the rollout is halted; None: there is no earlier one for it."""
    rollout = plan.rollouts.get(name)
    return _edition(plan, host, name, rollout.previous) if rollout is not None and rollout.previous else None


def usable(plan: Plan, host: Host, queue: str) -> RuntimeRef | None:
    """Return the runtime in which *host* is to run a job of *queue*: the wanted one if it is ready, else another ready one."""
    name = plan.name_for(queue)
    if not host.ready:
        return None
    wanted = choose(plan, host, name)
    if wanted is not None and wanted.tree.digest in host.ready:
        return wanted
    rollout = plan.rollouts.get(name)
    of_name = plan.editions.get(name, {})
    first = [rollout.previous] if rollout is not None and rollout.previous in of_name else []
    for serial in (*first, *sorted(of_name, reverse=True)):
        tree = of_name[serial].get(host.platform)
        if tree is not None and tree.digest in host.ready:
            return RuntimeRef(name, serial, tree)
    return None


def choose_release(plan: ReleasePlan, host: Host) -> WantedRelease | None:
    """Return the release that *host* is to run; None: it keeps the one that it runs."""
    rollout = plan.rollout
    if rollout is None or not host.platform:
        return None
    rolled = newest_edition(plan.editions, host, "", rollout.serial)
    before = newest_edition(plan.editions, host, "", rollout.previous)
    chosen = rolled if is_included(rollout, host, WORKER, rolled) else before
    asked = newest_edition(plan.editions, host, "", host.asked)
    if asked is not None and asked.serial > (chosen.serial if chosen else 0):
        chosen = asked
    return None if chosen is None else WantedRelease(plan.versions.get(chosen.tree.digest, ""), chosen.serial, chosen.tree)


def needed_serials(rollout: Rollout, editions: Editions) -> set[tuple[int, str]]:
    """Return the editions (serial, platform) that a rollout may give to a worker now or after a rollback."""
    platforms = {platform for some in editions.values() for platform in some}
    needed = {(serial, platform) for serial, platform in _newest_of_each(editions, rollout.serial, platforms)}
    needed |= _newest_of_each(editions, rollout.previous, platforms)
    return needed | {(rollout.built, platform) for platform in editions.get(rollout.built, ())}


def host_of(worker: Any) -> Host | None:
    """Return a worker's row as a host; None: it takes no runtimes from central."""
    if Capability.RUNTIMES.value not in (worker.capabilities or ()):
        return None
    return Host(
        worker_id=worker.id,
        queues=tuple(worker.queues),
        platform=(worker.facts or {}).get("platform", ""),
        labels=worker.labels or {},
        ready=ready_trees(worker.runtimes),
    )


def release_host_of(worker: Any) -> Host | None:
    """Return a worker's row as a host of releases; None: it takes none from central."""
    if Capability.RELEASES.value not in (worker.capabilities or ()):
        return None
    held = worker.release or {}
    is_proven = held.get("phase") == ReleasePhase.RUNNING.value
    return Host(
        worker_id=worker.id,
        queues=(),
        platform=(worker.facts or {}).get("release_platform", ""),
        labels=worker.labels or {},
        ready=frozenset({held["tree"]}) if is_proven else frozenset(),
        asked=worker.release_asked or 0,
    )


def ready_trees(held: Iterable[Mapping[str, str]] | None) -> frozenset[str]:
    """Return the digests of the runtimes that a worker has reported as ready, and that suit this central."""
    return frozenset(one["tree"] for one in held or () if one["phase"] == RuntimePhase.READY.value and not one["mismatch"])


def _names(plan: Plan, host: Host) -> list[str]:
    return list(dict.fromkeys(plan.name_for(queue) for queue in host.queues))


def is_included(rollout: Rollout, host: Host, name: str, rolled: RuntimeRef | None) -> bool:
    """Return whether *host* is among the workers that are to have the rolled serial."""
    if rolled is None:
        return False
    if rollout.halted:
        return rolled.tree.digest in host.ready
    has_labels = rollout.labels is None or pairs_of(rollout.labels) <= host.labels.items()
    return has_labels and bucket(host.worker_id, name) < rollout.percent


def _edition(plan: Plan, host: Host, name: str, serial: int) -> RuntimeRef | None:
    """Return the edition of a serial for the host's platform, else that of the newest older serial that has one."""
    return newest_edition(plan.editions.get(name, {}), host, name, serial)


def newest_edition(editions: Editions, host: Host, name: str, serial: int) -> RuntimeRef | None:
    """Return the edition for the host's platform of the newest serial that has one, up to *serial*."""
    for one in sorted((known for known in editions if known <= serial), reverse=True):
        tree = editions[one].get(host.platform)
        if tree is not None:
            return RuntimeRef(name, one, tree)
    return None


def _newest_of_each(editions: Editions, serial: int, platforms: Iterable[str]) -> set[tuple[int, str]]:
    found = set()
    for platform in platforms:
        serials = [one for one, some in editions.items() if one <= serial and platform in some]
        if serials:
            found.add((max(serials), platform))
    return found


def _kept(plan: Plan, host: Host, wanted: RuntimeRef) -> Sequence[str]:
    """Return the tree of the previous serial; and while the wanted one is not ready, those that are ready in its place."""
    rollout = plan.rollouts[wanted.name]
    before = _edition(plan, host, wanted.name, rollout.previous)
    kept = [] if before is None else [before.tree.digest]
    if wanted.tree.digest not in host.ready:
        of_name = plan.editions.get(wanted.name, {})
        mine = (some[host.platform].digest for _, some in sorted(of_name.items(), reverse=True) if host.platform in some)
        kept += [digest for digest in mine if digest in host.ready]
    return kept


def _why_missing(plan: Plan, host: Host, name: str) -> str:
    """Return why there is no runtime of this name for *host*, and the command that helps."""
    if not host.platform:
        return (
            f"the worker takes its runtime {name!r} from central, but has not reported its platform; "
            "its interpreter must be CPython: set runtime.interpreter, or runtime.python, in the worker's settings"
        )
    build = f"airflow remote runtimes build {name} --platform {host.platform}"
    rollout = plan.rollouts.get(name)
    if rollout is None or not rollout.built:
        return f"central has not built the runtime {name!r} yet; build it: {build}"
    serials = [serial for serial, some in plan.editions.get(name, {}).items() if host.platform in some]
    if not serials:
        return f"the runtime {name!r} has no edition for {host.platform}; build it: {build}"
    if rollout.halted:
        return (
            f"the rollout of serial {rollout.serial} of the runtime {name!r}, the first for {host.platform}, is halted "
            f"({rollout.halted}); build it again, or resume: airflow remote runtimes roll {name} --resume"
        )
    return (
        f"serial {max(serials)} of the runtime {name!r} is for {host.platform}, but is not rolled out; "
        f"roll it out: airflow remote runtimes roll {name}"
    )
