"""Duties that only one API process at a time performs for the fleet, and whether there is anything to do."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from airflow_remote_protocol.states import JobState
from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.compat import database_clock
from airflow_remote_provider.ledger.wakeup import heartbeat
from airflow_remote_provider.models import Duty, Job

OPEN = [state.value for state in JobState if not state.is_ended]


def take_duty(session: Session, name: str, holder: str, *, lasts: timedelta) -> bool:
    """Take or keep a duty that one process at a time has. Return whether *holder* has it, until *lasts* from now."""
    now, until = database_clock(session), database_clock(session, lasts)
    taken = session.execute(
        update(Duty)
        # No process takes a duty for longer than *lasts*: one that ends later was taken before the clock was set back.
        .where(Duty.name == name, or_(Duty.holder == holder, Duty.until < now, Duty.until > database_clock(session, 2 * lasts)))
        .values(holder=holder, until=until)
        .execution_options(synchronize_session=False)
    )
    if taken.rowcount == 1:  # type: ignore[attr-defined]
        return True
    if session.get(Duty, name) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(Duty(name=name, holder=holder, until=until))
            session.flush()
    except IntegrityError:
        return False
    return True


def take_duties(session: Session, names: Collection[str], holder: str, *, lasts: timedelta) -> set[str]:
    """Take or keep several duties at once, as :func:`take_duty` does; return those that *holder* has.

    Two statements; three more for each duty that nobody ever had.
    """
    now, until = database_clock(session), database_clock(session, lasts)
    session.execute(
        update(Duty)
        .where(Duty.name.in_(list(names)))
        .where(or_(Duty.holder == holder, Duty.until < now, Duty.until > database_clock(session, 2 * lasts)))
        .values(holder=holder, until=until)
        .execution_options(synchronize_session=False)
    )
    known = session.execute(select(Duty.name, Duty.holder).where(Duty.name.in_(list(names))))
    holders = {row.name: row.holder for row in known}
    taken = {name for name in names if name not in holders and take_duty(session, name, holder, lasts=lasts)}
    return taken | {name for name, held_by in holders.items() if held_by == holder}


def drop_duties(session: Session, names: Collection[str], holder: str) -> None:
    """Give up those of these duties that *holder* has, so that another process can take them at once."""
    session.execute(
        update(Duty)
        .where(Duty.name.in_(list(names)), Duty.holder == holder)
        .values(until=database_clock(session))
        .execution_options(synchronize_session=False)
    )


def check_open_jobs(session: Session) -> tuple[datetime, bool]:
    """Return the database's clock and whether any job has not ended; send all API processes a heartbeat by NOTIFY.

    One statement. The holder of the duty calls it every few seconds.
    """
    now, is_open = compat.read_clock_with(session, select(Job.id).where(Job.state.in_(OPEN)).exists(), *heartbeat(session))
    return now, bool(is_open)
