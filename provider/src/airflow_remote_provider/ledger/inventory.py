"""The trees that workers report to hold. Shown to users; no decision rests on it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.errors import Revoked
from airflow_remote_provider.models import Worker


def note(session: Session, worker_id: str, trees: Sequence[str]) -> None:
    """Store the digests of the trees that a worker holds, each once, in the order that it reported.

    Raises:
        Revoked: the worker was removed.
    """
    changed = session.execute(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(inventory=list(dict.fromkeys(trees)))
        .execution_options(synchronize_session=False)
    )
    if not changed.rowcount:  # type: ignore[attr-defined]
        raise Revoked("this worker was removed; join again with a new enrolment token")
