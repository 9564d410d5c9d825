"""Rollouts of runtimes from central: begin one, widen it, halt it, resume it, roll back. Serials only rise.

Who gets which serial is decided in :mod:`.assignments`. A rollout also halts by itself (:mod:`.held_runtimes`).
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.definitions.needs import LONGEST, encode_labels
from airflow_remote_provider.ledger import queues, runtimes
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import RuntimeRow, TreeRow

LONGEST_REASON = 500


def roll(
    session: Session,
    name: str,
    *,
    by: str,
    percent: int = 100,
    labels: Mapping[str, str] | None = None,
    to: int | None = None,
) -> int:
    """Roll a runtime out to a share of the workers, and among them only to those with *labels*. Return the serial.

    Args:
        to: a serial whose trees are rolled out again, under a new serial; None: the newest build.

    Raises:
        NotFound: there is no such runtime or serial.
        LedgerError: the share or the labels are not valid, nothing is built, or the rollout of this serial is halted.
    """
    if not 0 <= percent <= 100:
        raise LedgerError(f"the share of a rollout is 0 to 100 percent; this is {percent}")
    needed = encode_labels(labels or {})
    if needed is not None and len(needed) > LONGEST:
        raise LedgerError(f"the labels of a rollout have {len(needed)} characters; {LONGEST} is the limit")
    row = runtimes.must_lock(session, name)
    if to is not None:
        _repeat(session, row, to)
    if not row.built:
        raise LedgerError(f"the runtime {name!r} has not been built; build it: airflow remote runtimes build {name}")
    if row.serial == row.built and row.halted:
        raise LedgerError(
            f"the rollout of serial {row.serial} of the runtime {name!r} is halted: {row.halted}; build it again, resume "
            f"(airflow remote runtimes roll {name} --resume), or go back (--to SERIAL)"
        )
    if row.serial != row.built:
        row.previous, row.serial, row.halted = _fallback(row), row.built, ""
    row.percent, row.labels = percent, needed
    whom = f"{percent} % of the workers" + (f" with {needed}" if needed else "")
    record_action(session, by, f"rolled serial {row.serial} of the runtime {name} out to {whom}")
    runtimes.note_change(session, row, by)
    return row.serial


def halt(session: Session, name: str, *, by: str, reason: str = "") -> None:
    """Halt the rollout: workers that have the rolled serial ready keep it, the others are to have the previous one.

    Raises:
        NotFound: there is no such runtime.
        LedgerError: there is no earlier serial, or the rollout is halted already.
    """
    row = runtimes.must_lock(session, name)
    if not row.previous:
        raise LedgerError(f"serial {row.serial} of the runtime {name!r} has no earlier one to go back to; nothing was changed")
    if row.halted:
        raise LedgerError(f"the rollout of the runtime {name!r} is halted already: {row.halted}")
    row.halted = f"by {by}" + (f": {presentable(reason, longest=LONGEST_REASON)}" if reason else "")
    record_action(session, by, f"halted serial {row.serial} of the runtime {name}" + (f": {reason}" if reason else ""))
    runtimes.note_change(session, row, by)


def resume(session: Session, name: str, *, by: str) -> None:
    """Resume a halted rollout.

    Raises:
        NotFound: there is no such runtime.
        LedgerError: it is not halted.
    """
    row = runtimes.must_lock(session, name)
    if not row.halted:
        raise LedgerError(f"the rollout of the runtime {name!r} is not halted; nothing was changed")
    record_action(
        session, by, f"resumed the rollout of serial {row.serial} of the runtime {name}, which was halted: {row.halted}"
    )
    row.halted = ""
    runtimes.note_change(session, row, by)


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


def _fallback(row: RuntimeRow) -> int:
    """Return the serial of the workers that the next rollout does not include: the last one that all workers were to have."""
    is_everywhere = row.percent == 100 and row.labels is None and not row.halted
    return row.serial if is_everywhere or not row.previous else row.previous


def _repeat(session: Session, row: RuntimeRow, serial: int) -> None:
    """Make a new serial of the trees that workers have under an earlier one, for each platform."""
    newest: dict[str, runtimes.RuntimeEdition] = {}
    some = runtimes.editions(session, row.name).get(row.name, ())
    for edition in some:  # the newest first
        if edition.serial <= serial:
            newest.setdefault(edition.platform, edition)
    if not any(edition.serial == serial for edition in newest.values()):
        known = ", ".join(str(one) for one in sorted({edition.serial for edition in some})) or "none"
        raise NotFound(f"the runtime {row.name!r} has no serial {serial}; it has: {known}")
    # Locked, so that the garbage collection deletes none of them before the new editions are stored.
    digests = {edition.tree for edition in newest.values()}
    session.execute(select(TreeRow.digest).where(TreeRow.digest.in_(digests)).order_by(TreeRow.digest).with_for_update())
    row.built += 1
    runtimes.publish(session, row.name, row.built, {platform: edition.tree for platform, edition in newest.items()})
