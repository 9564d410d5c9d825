"""Routes of Dag bundles: which are published, by whom and when, and the request to publish one now."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger.views import bundles as view
from airflow_remote_provider.ledger.views.bundles import BundleDetails, BundleSummary

router = Routes("bundles")

LONGEST_NAME = 250
"""As Airflow's own limit."""
Bundle = Annotated[
    str, Path(min_length=1, max_length=LONGEST_NAME, pattern=r"^[^\x00-\x1f]+$", description="the name of the Dag bundle")
]


@router.get("/bundles", summary="List the Dag bundles")
async def list_bundles(caller: CallerDep) -> Listed[BundleSummary]:
    """Those of Airflow's configuration, and all that were ever published."""
    return Listed(items=await caller.read(view.list_bundles), next=None)


@router.get("/bundles/{bundle:path}", summary="Show a Dag bundle")
async def show_bundle(caller: CallerDep, bundle: Bundle) -> BundleDetails:
    """With its history, and the workers that hold it."""
    return await caller.read(view.show_bundle, bundle)


@router.post("/bundles/{bundle:path}/publish", status_code=202, summary="Ask to publish a Dag bundle now")
async def ask_to_publish(caller: CallerDep, bundle: Bundle) -> BundleSummary:
    """The process that publishes it scans it within some seconds, instead of at its next turn."""
    return await caller.act_on_bundle(view.ask_to_publish, bundle)
