"""Airflow's rows of a deferred task: its trigger, and how the task is resumed or ended."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.compat.models import task_instance_model


def trigger_model() -> Any:
    """Return Airflow's Trigger ORM class."""
    from airflow.models.trigger import Trigger

    return Trigger


def waits_on(session: Session, ti_id: UUID, queue: str) -> int | None:
    """Return the id of the trigger that a deferred task instance waits for, if the trigger is in the trigger queue *queue*."""
    ti, trigger = task_instance_model(), trigger_model()
    query = select(ti.trigger_id).join(trigger, trigger.id == ti.trigger_id)
    return session.scalar(query.where(ti.id == ti_id, ti.state == "deferred", trigger.queue == queue))


def resume(session: Session, ti_id: UUID, trigger_id: int) -> bool:
    """Resume a task that waits for this trigger, as Airflow's `Trigger.submit_event` does, but without decoding anything.

    Airflow does not get the event of the trigger. Return whether the task still waited.
    """
    ti = task_instance_model()
    resumed = session.execute(
        update(ti)
        .where(ti.id == ti_id, ti.state == "deferred", ti.trigger_id == trigger_id)
        .values(state="scheduled", trigger_id=None, scheduled_dttm=datetime.now(timezone.utc))
        .execution_options(synchronize_session=False)
    )
    return bool(resumed.rowcount == 1)  # type: ignore[attr-defined]


def end_waiting(session: Session, ti_id: UUID, trigger_id: int, *, state: str, xcoms: Mapping[str, Any]) -> bool:
    """End a task that waits for this trigger, in *state*, as Airflow does for events such as `TaskSuccessEvent`.

    *xcoms* are encoded values, stored as they are. Return whether the task still waited.
    """
    from airflow.models.trigger import handle_event_submit
    from airflow.models.xcom import XComModel
    from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent

    ti = task_instance_model()
    waiting = select(ti).where(ti.id == ti_id, ti.state == "deferred", ti.trigger_id == trigger_id)
    task = session.scalar(waiting.with_for_update(of=ti))
    if task is None:
        return False
    events = {"success": TaskSuccessEvent, "failed": TaskFailedEvent, "skipped": TaskSkippedEvent}
    task.clear_next_method_args()
    handle_event_submit(events[state](), task_instance=task, session=session)
    for key, value in xcoms.items():
        XComModel.set(
            key=key,
            value=value,
            dag_id=task.dag_id,
            task_id=task.task_id,
            run_id=task.run_id,
            map_index=task.map_index,
            serialize=False,
            session=session,
        )
    return True


def forget_unused_triggers() -> None:
    """Make Airflow delete trigger rows that no task waits for. Its triggerer does this, but remote triggers don't need one."""
    trigger_model().clean_unused()
