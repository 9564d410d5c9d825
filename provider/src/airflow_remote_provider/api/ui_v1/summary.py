"""The route of the fleet's summary, for Airflow's home page."""

from __future__ import annotations

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger.views import summary as view
from airflow_remote_provider.ledger.views.summary import Summary
from airflow_remote_provider.settings import silent_after

router = Routes("workers")


@router.get("/summary", summary="Summarize the fleet")
async def summarize(caller: CallerDep) -> Summary:
    """The numbers of workers, jobs, and queues without a worker."""
    return await caller.read(view.summarize, silent_after=silent_after())
