"""Routes of runtimes from central: what is built, which workers have which, and their rollouts."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from sqlalchemy.orm import Session

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed
from airflow_remote_provider.api.ui_v1.request_types import HaltRequest, RollRequest
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger import rollouts
from airflow_remote_provider.ledger.views import runtimes as view
from airflow_remote_provider.ledger.views.runtimes import RuntimeDetails, RuntimeSummary

router = Routes("runtimes")

Runtime = Annotated[
    str, Path(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9._-]*$", description="the name of the runtime")
]


@router.get("/runtimes", summary="List the runtimes that central sends to workers")
async def list_runtimes(caller: CallerDep) -> Listed[RuntimeSummary]:
    """With their rollouts, and how many workers have them ready."""
    return Listed(items=await caller.read(view.list_runtimes), next=None)


@router.get("/runtimes/{runtime}", summary="Show a runtime")
async def show_runtime(caller: CallerDep, runtime: Runtime) -> RuntimeDetails:
    """With its recipe, its editions by serial and platform, and what each worker has of it."""
    return await caller.read(view.show_runtime, runtime)


@router.post("/runtimes/{runtime}/roll", summary="Roll a runtime out, widen its rollout, or roll back")
async def roll(caller: CallerDep, runtime: Runtime, body: RollRequest) -> RuntimeSummary:
    """The other workers are to have the last serial that all workers were to have."""

    def roll_out(session: Session, name: str, *, by: str) -> RuntimeSummary:
        rollouts.roll(session, rollouts.of_runtime(name), by=by, percent=body.percent, labels=body.labels, to=body.to)
        return view.show_runtime(session, name).about

    return await caller.act_on_runtime(roll_out, runtime)


@router.post("/runtimes/{runtime}/halt", summary="Halt the rollout of a runtime")
async def halt(caller: CallerDep, runtime: Runtime, body: HaltRequest) -> RuntimeSummary:
    """Workers that have the rolled serial ready keep it; the others are to have the previous one."""

    def halt_it(session: Session, name: str, *, by: str) -> RuntimeSummary:
        rollouts.halt(session, rollouts.of_runtime(name), by=by, reason=body.reason)
        return view.show_runtime(session, name).about

    return await caller.act_on_runtime(halt_it, runtime)


@router.post("/runtimes/{runtime}/resume", summary="Resume a halted rollout")
async def resume(caller: CallerDep, runtime: Runtime) -> RuntimeSummary:
    def resume_it(session: Session, name: str, *, by: str) -> RuntimeSummary:
        rollouts.resume(session, rollouts.of_runtime(name), by=by)
        return view.show_runtime(session, name).about

    return await caller.act_on_runtime(resume_it, runtime)
