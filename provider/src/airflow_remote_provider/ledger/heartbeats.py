"""Airflow's own heartbeat of remote tasks, refreshed for the whole fleet by the executor."""

from __future__ import annotations

from airflow_remote_protocol.states import JobState
from sqlalchemy import and_, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.models import Job


def refresh_heartbeats(session: Session) -> int:
    """Keep Airflow's own heartbeat fresh for every running job: one UPDATE for the whole fleet. Return how many tasks.

    And one for tasks that were cleared while they ran (`restarting`): they wait for their job's end under a new id, and would
    start a second copy if the first one's worker is out of reach and Airflow lost patience.
    A job whose worker was silent too long is lost before (:func:`lose_silent`) and no longer running. The scheduler that asks
    compares with its own machine's clock: the later of the two is written, whichever of them was set.
    """
    ti = compat.task_instance_model()
    running = Job.state == JobState.RUNNING.value
    ours = [
        and_(ti.id.in_(select(Job.ti_id).where(running, Job.ti_id.is_not(None))), ti.state == "running"),
        and_(ti.external_executor_id.in_(select(Job.id).where(running)), ti.state == "restarting"),
    ]
    vouched = 0
    for which in ours:  # not one with OR: no database would use the indexes for it
        update_ = update(ti).where(which).values(last_heartbeat_at=compat.latest_clock(session))
        vouched += session.execute(update_.execution_options(synchronize_session=False)).rowcount  # type: ignore[attr-defined]
    return vouched
