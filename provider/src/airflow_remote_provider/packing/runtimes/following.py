"""Decides when a runtime or a release is to be made because central, or the fleet, has changed. Values in, values out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from packaging.version import InvalidVersion, Version

from airflow_remote_provider.ledger.releases import ReleaseRecord
from airflow_remote_provider.ledger.runtimes import RuntimeRecord
from airflow_remote_provider.ledger.staged_rollouts import FOLLOW

FAILED = "failed"
"""In `built_with`: the platforms that could not be built, so that the build is repeated."""
AGAIN_AFTER_S = 300.0
LONGEST_WAIT_S = 6 * 3600.0


@dataclass(frozen=True)
class Due:
    """What to make of a runtime or of a release."""

    platforms: tuple[str, ...]
    """Those to add; empty: all, because central's versions have changed."""
    reason: str
    version: str = ""
    """The release to make for them; empty: that of this provider, or a runtime."""


def find_due(record: RuntimeRecord, fleet: Collection[str], versions: Mapping[str, str]) -> Due | None:
    """Return what to build of a runtime now; None: nothing.

    *fleet* are the platforms of its workers, *versions* central's (:func:`.requirements.built_with`).
    """
    if not record.recipe.follow:
        return None
    return _find_due(record, record.recipe.platforms or sorted(fleet), versions)


def find_due_release(record: ReleaseRecord, usable: Sequence[str], versions: Mapping[str, str]) -> Due | None:
    """Return which release to make now; None: none.

    *usable* are the platforms of the fleet for which releases can be made, *versions* central's (:func:`.releases.built_with`).
    """
    due = _find_due(record, usable, versions) if record.follow else None
    return replace(due, version=record.newest_version) if due is not None and due.platforms else due


def _find_due(record: RuntimeRecord | ReleaseRecord, platforms: Sequence[str], versions: Mapping[str, str]) -> Due | None:
    if not record.built:
        return None  # no user has begun with it
    if record.serial != record.built and record.updated_by != FOLLOW:
        return None  # a user's serial waits to be rolled out: a further one would take it along
    if any(_is_newer(record.built_with.get(name, ""), ours) for name, ours in versions.items()):
        return None  # this process is older than the one that built it, as while central is updated
    if dict(record.built_with) != dict(versions):
        before = {name: record.built_with.get(name, "") for name in versions}
        changed = [f"{name} {before[name] or '?'} → {new}" for name, new in versions.items() if before[name] != new]
        return Due((), ", ".join(changed) or f"not built: {record.built_with.get(FAILED, '')}")
    have = {edition.platform for edition in record.editions}
    missing = tuple(platform for platform in platforms if platform not in have)
    return Due(missing, f"no edition for {', '.join(missing)}") if missing else None


def _is_newer(text: str, than: str) -> bool:
    try:
        return Version(text) > Version(than)
    except InvalidVersion:
        return False


def wait_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row."""
    return min(AGAIN_AFTER_S * 2.0 ** min(failures - 1, 20), LONGEST_WAIT_S)
