"""Notifies the API processes of changes by Postgres NOTIFY, sent when the transaction with the change commits.

A connection pooler may drop NOTIFY silently. So the process that holds the duty also sends a heartbeat (:func:`heartbeat`), and a
process that has received none for a while does not rely on NOTIFY.

Other databases have no NOTIFY; there the API processes poll (:mod:`..api.dispatch.wakeups`).
"""

from __future__ import annotations

from enum import Enum

from sqlalchemy import ColumnElement, func, text
from sqlalchemy.orm import Session

CHANNEL = "airflow_remote"


HEARTBEAT = "heartbeat"
"""A payload that only shows that NOTIFY arrives."""


class Topic(str, Enum):
    QUEUED = "queued"
    """Jobs wait to be offered."""
    STOP = "stop"
    """Jobs must be stopped."""
    WORKER = "worker"
    """A worker's row changed: intent, rights, session, credential."""
    PUBLISH = "publish"
    """A user or a job asks to publish a bundle now."""
    RUNTIME = "runtime"
    """Which runtimes workers are to have changed: a build, a rollout, or the runtime of a queue."""


def wake(session: Session, topic: Topic) -> None:
    """Wake all API processes when this transaction commits. Postgres folds repeats within one transaction."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_notify(:channel, :topic)"), {"channel": CHANNEL, "topic": topic.value})


def heartbeat(session: Session) -> list[ColumnElement[object]]:
    """Return the columns that make a SELECT send a heartbeat when its transaction commits; empty on databases without NOTIFY.

    So a heartbeat costs no statement of its own.
    """
    return [func.pg_notify(CHANNEL, HEARTBEAT)] if session.get_bind().dialect.name == "postgresql" else []
