"""Incidents as users see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.incidents import no_such_incident
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import IncidentRow

MOST_SHOWN = 1000


@dataclass(frozen=True)
class Incident:
    """A condition that needs an operator, from its begin to its recovery."""

    id: str
    kind: str
    subject: str
    """The name of the worker, queue, runtime or release that it is about."""
    team: str | None
    text: str
    begun_at: datetime
    seen_at: datetime
    """When the condition was last found, to the minute."""
    recovered_at: datetime | None
    """None: it lasts."""
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    trouble: str
    """Why a notice of it was not delivered at the last attempt; empty: none has failed."""


def list_incidents(session: Session, *, recovered: bool = False, scope: Scope = EVERYTHING) -> list[Incident]:
    """Return the open incidents, or with *recovered* all that are kept: open ones first, then the newest. At most 1,000."""
    query = select(IncidentRow).where(scope.sees_team(IncidentRow.team))
    if not recovered:
        query = query.where(IncidentRow.open_key.is_not(None))
    order = query.order_by(IncidentRow.open_key.is_(None), IncidentRow.begun_at.desc(), IncidentRow.id)
    return [_shown(row) for row in session.scalars(order.limit(MOST_SHOWN))]


def show_incident(session: Session, incident_id: str, *, scope: Scope = EVERYTHING) -> Incident:
    """Return one incident.

    Raises:
        NotFound: there is no such incident within *scope*.
    """
    row = session.get(IncidentRow, incident_id)
    if row is None or not scope.includes_team(row.team):
        raise no_such_incident(incident_id)
    return _shown(row)


def _shown(row: IncidentRow) -> Incident:
    return Incident(
        id=row.id,
        kind=row.kind,
        subject=row.subject,
        team=row.team,
        text=row.text,
        begun_at=row.begun_at,
        seen_at=row.seen_at,
        recovered_at=row.recovered_at,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        trouble=row.trouble,
    )
