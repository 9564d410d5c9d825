"""Tells the API processes that something is worth a look: Postgres NOTIFY, sent at commit of the transaction that changed it.

A pooler may swallow NOTIFY without a sign, so the process that holds the duty also sends a heartbeat (:func:`heartbeat`): who has
heard none for a while does not rely on NOTIFY.

Other databases have no such thing; there the API processes look by themselves (:mod:`..api.dispatcher`).
"""

from __future__ import annotations

from enum import Enum

from sqlalchemy import ColumnElement, func, text
from sqlalchemy.orm import Session

CHANNEL = "airflow_remote"


HEARTBEAT = "heartbeat"
"""The payload that says nothing but that NOTIFY arrives."""


class Topic(str, Enum):
    QUEUED = "queued"
    """Jobs wait to be offered."""
    STOP = "stop"
    """Jobs must be stopped."""
    WORKER = "worker"
    """A worker's row changed: intent, rights, session, credential."""


def wake(session: Session, topic: Topic) -> None:
    """Wake all API processes when this transaction commits. Postgres folds repeats within one transaction."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_notify(:channel, :topic)"), {"channel": CHANNEL, "topic": topic.value})


def heartbeat(session: Session) -> list[ColumnElement[object]]:
    """Return what a SELECT sends a heartbeat by when its transaction commits: a column more, no statement. None, where there is
    no NOTIFY."""
    return [func.pg_notify(CHANNEL, HEARTBEAT)] if session.get_bind().dialect.name == "postgresql" else []
