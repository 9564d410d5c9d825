"""Rollouts of runtimes and of the worker's releases: begin one, widen it, halt it, resume it, roll back. Serials only rise.

Who gets which serial is decided in :mod:`.assignments`. A rollout also halts by itself, when a serial fails at a worker
(:mod:`.held_runtimes`, :mod:`.held_releases`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.definitions.needs import LONGEST, encode_labels
from airflow_remote_provider.ledger import queues, releases, runtimes
from airflow_remote_provider.ledger.assignments import WORKER
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.trees import RELEASE, RUNTIME
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import TreeRow

LONGEST_REASON = 500


@dataclass(frozen=True)
class Kind:
    """What is rolled out: one runtime, or the worker's releases."""

    kind: str
    """Of its editions."""
    name: str
    text: str
    """For users."""
    roll: str
    """The command that rolls it out."""
    build: str
    """The command that makes a newer one."""
    can_go_back: bool
    """Whether there is something to go back to before the first serial: the release that each site has installed."""
    lock: Callable[[Session], Any]


def of_runtime(name: str) -> Kind:
    command = "airflow remote runtimes"
    return Kind(
        kind=RUNTIME,
        name=name,
        text=f"the runtime {name!r}",
        roll=f"{command} roll {name}",
        build=f"{command} build {name}",
        can_go_back=False,
        lock=partial(runtimes.must_lock, name=name),
    )


RELEASES = Kind(
    kind=RELEASE,
    name=WORKER,
    text="the worker's releases",
    roll="airflow remote releases roll",
    build="airflow remote releases add",
    can_go_back=True,
    lock=releases.must_lock,
)


def roll(
    session: Session,
    kind: Kind,
    *,
    by: str,
    percent: int = 100,
    labels: Mapping[str, str] | None = None,
    to: int | None = None,
) -> int:
    """Roll the newest build out to a share of the workers, and among them only to those with *labels*. Return the serial.

    Args:
        to: a serial whose trees are rolled out again, under a new serial; None: the newest build.

    Raises:
        NotFound: there is no such runtime, release or serial.
        LedgerError: the share or the labels are not valid, nothing is built, or the rollout of this serial is halted.
    """
    if not 0 <= percent <= 100:
        raise LedgerError(f"the share of a rollout is 0 to 100 percent; this is {percent}")
    needed = encode_labels(labels or {})
    if needed is not None and len(needed) > LONGEST:
        raise LedgerError(f"the labels of a rollout have {len(needed)} characters; {LONGEST} is the limit")
    row = kind.lock(session)
    if to is not None:
        _repeat(session, kind, row, to)
    if not row.built:
        raise LedgerError(f"nothing was built of {kind.text}; build it: {kind.build}")
    if row.serial == row.built and row.halted:
        raise LedgerError(
            f"the rollout of serial {row.serial} of {kind.text} is halted: {row.halted}; make a newer one ({kind.build}), resume "
            f"({kind.roll} --resume), or go back (--to SERIAL)"
        )
    if row.serial != row.built:
        row.previous, row.serial, row.halted = fallback(kind, row), row.built, ""
    row.percent, row.labels = percent, needed
    whom = f"{percent} % of the workers" + (f" with {needed}" if needed else "")
    record_action(session, by, f"rolled serial {row.serial} of {kind.text} out to {whom}")
    runtimes.note_change(session, row, by)
    return int(row.serial)


def halt(session: Session, kind: Kind, *, by: str, reason: str = "") -> None:
    """Halt the rollout: workers that have the rolled serial ready keep it, the others are to have the previous one.

    Raises:
        NotFound: there is no such runtime or release.
        LedgerError: there is no earlier serial, or the rollout is halted already.
    """
    row = kind.lock(session)
    if not row.serial or not (row.previous or kind.can_go_back):
        raise LedgerError(f"serial {row.serial} of {kind.text} has no earlier one to go back to; nothing was changed")
    if row.halted:
        raise LedgerError(f"the rollout of {kind.text} is halted already: {row.halted}")
    row.halted = f"by {by}" + (f": {presentable(reason, longest=LONGEST_REASON)}" if reason else "")
    record_action(session, by, f"halted serial {row.serial} of {kind.text}" + (f": {reason}" if reason else ""))
    runtimes.note_change(session, row, by)


def resume(session: Session, kind: Kind, *, by: str) -> None:
    """Resume a halted rollout.

    Raises:
        NotFound: there is no such runtime or release.
        LedgerError: it is not halted.
    """
    row = kind.lock(session)
    if not row.halted:
        raise LedgerError(f"the rollout of {kind.text} is not halted; nothing was changed")
    record_action(session, by, f"resumed the rollout of serial {row.serial} of {kind.text}, which was halted: {row.halted}")
    row.halted = ""
    runtimes.note_change(session, row, by)


def note_trouble(session: Session, kind: Kind, text: str) -> None:
    """Note why the newest one could not be made; empty: it could. Nothing is noted of what was never made."""
    with suppress(NotFound):
        kind.lock(session).trouble = presentable(text, longest=runtimes.LONGEST_TROUBLE)


def assign_queue(session: Session, queue: str, name: str | None, *, by: str) -> None:
    """Set the runtime in which the jobs of *queue* run, from their next offer on; None: the default one.

    Raises:
        NotFound: there is no such runtime.
        LedgerError: *queue* is not a valid name of a queue, or stands for all queues.
    """
    if queue == queues.ALL_QUEUES:
        raise LedgerError("queues without a rule of their own have the runtime `default`; here, name one queue")
    if name is not None:
        runtimes.must_lock(session, name)
    queues.lock_queue(session, queue, by=by).runtime = name
    record_action(session, by, f"set the runtime of the queue {queue} to {name or 'default'}")
    session.flush()
    wake(session, Topic.RUNTIME)


def fallback(kind: Kind, row: Any) -> int:
    """Return the serial of the workers that the next rollout does not include: the last one that all workers were to have."""
    is_everywhere = row.percent == 100 and row.labels is None and not row.halted
    has_earlier = row.previous or kind.can_go_back
    return int(row.serial if is_everywhere or not has_earlier else row.previous)


def _repeat(session: Session, kind: Kind, row: Any, serial: int) -> None:
    """Make a new serial of the trees that workers have under an earlier one, for each platform."""
    newest: dict[str, runtimes.RuntimeEdition] = {}
    some = runtimes.editions(session, kind.name, kind=kind.kind).get(kind.name, ())
    for edition in some:  # the newest first
        if edition.serial <= serial:
            newest.setdefault(edition.platform, edition)
    if not any(edition.serial == serial for edition in newest.values()):
        known = ", ".join(str(one) for one in sorted({edition.serial for edition in some})) or "none"
        raise NotFound(f"there is no serial {serial} of {kind.text}; there are: {known}")
    # Locked, so that the garbage collection deletes none of them before the new editions are stored.
    digests = {edition.tree for edition in newest.values()}
    session.execute(select(TreeRow.digest).where(TreeRow.digest.in_(digests)).order_by(TreeRow.digest).with_for_update())
    row.built += 1
    trees = {platform: edition.tree for platform, edition in newest.items()}
    runtimes.publish(session, kind.name, row.built, trees, kind=kind.kind)
