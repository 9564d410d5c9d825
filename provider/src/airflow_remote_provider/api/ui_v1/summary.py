"""The fleet in a line, for Airflow's home page."""

from __future__ import annotations

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger.views import summary as view
from airflow_remote_provider.ledger.views.summary import Summary
from airflow_remote_provider.settings import silent_after

router = Routes("workers")


@router.get("/summary", summary="Say how the fleet is doing")
async def summarize(caller: CallerDep) -> Summary:
    """Workers, jobs, and the queues that nobody serves, counted."""
    return await caller.read(view.summarize, silent_after=silent_after())
