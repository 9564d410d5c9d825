"""Routes of incidents: what needs an operator, and who takes care of it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Path, Query
from sqlalchemy.orm import Session

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger import incidents
from airflow_remote_provider.ledger.views import incidents as view
from airflow_remote_provider.ledger.views.incidents import Incident
from airflow_remote_provider.ledger.views.scope import Scope

router = Routes("incidents")

IncidentId = Annotated[str, Path(max_length=36)]


@router.get("/incidents", summary="List the incidents")
async def list_incidents(
    caller: CallerDep, recovered: Annotated[bool, Query(description="whether to list recovered ones, too")] = False
) -> Listed[Incident]:
    """Open ones first, then the newest. At most 1,000."""
    return Listed(items=await caller.read(view.list_incidents, recovered=recovered), next=None)


@router.get("/incidents/{incident_id}", summary="Show an incident")
async def show_incident(caller: CallerDep, incident_id: IncidentId) -> Incident:
    return await caller.read(view.show_incident, incident_id)


@router.post("/incidents/{incident_id}/acknowledge", summary="Acknowledge an incident")
async def acknowledge(caller: CallerDep, incident_id: IncidentId) -> Incident:
    """Shows others that the user takes care of it. Changes nothing about the condition."""

    def acknowledged(session: Session, *, by: str) -> Incident:
        incidents.acknowledge(session, incident_id, by=by)
        return view.show_incident(session, incident_id)

    return await caller.act(acknowledged, team=partial(_team_of, incident_id))


def _team_of(incident_id: str, session: Session, scope: Scope) -> str | None:
    return view.show_incident(session, incident_id, scope=scope).team
