"""Refreshes Airflow's own heartbeat of remote tasks for the whole fleet, on behalf of the executor."""

from __future__ import annotations

from airflow_remote_protocol.states import JobState
from sqlalchemy import and_, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.models import Job


def refresh_heartbeats(session: Session) -> int:
    """Refresh Airflow's own heartbeat of every running job's task, with one UPDATE for the whole fleet. Return how many tasks.

    A second UPDATE covers tasks that were cleared while they ran (`restarting`): they wait for their job's end under a new id.
    If their heartbeat timed out while the worker is unreachable, Airflow would start a second copy.

    A job whose worker was silent for too long no longer counts as running (:func:`..lost_jobs.lose_silent`). The scheduler
    compares heartbeats with the clock of its own machine, so the later of the two clocks is written.
    """
    ti = compat.task_instance_model()
    running = Job.state == JobState.RUNNING.value
    ours = [
        and_(ti.id.in_(select(Job.ti_id).where(running, Job.ti_id.is_not(None))), ti.state == "running"),
        and_(ti.external_executor_id.in_(select(Job.id).where(running)), ti.state == "restarting"),
    ]
    refreshed = 0
    for which in ours:  # not one with OR: no database would use the indexes for it
        update_ = update(ti).where(which).values(last_heartbeat_at=compat.latest_clock(session))
        refreshed += session.execute(update_.execution_options(synchronize_session=False)).rowcount  # type: ignore[attr-defined]
    return refreshed
