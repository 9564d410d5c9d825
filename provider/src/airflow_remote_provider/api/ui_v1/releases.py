"""Routes of the worker's releases: what was added, which worker runs what, and the rollout."""

from __future__ import annotations

from sqlalchemy.orm import Session

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.request_types import HaltRequest, RollRequest
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger import rollouts
from airflow_remote_provider.ledger.views import releases as view
from airflow_remote_provider.ledger.views.releases import ReleasesDetails, ReleasesSummary

router = Routes("releases")


@router.get("/releases", summary="Show the releases of the worker that central sends")
async def show_releases(caller: CallerDep) -> ReleasesDetails:
    """With the rollout, the editions by serial and platform, and what each worker runs."""
    return await caller.read(view.show_releases)


@router.post("/releases/roll", summary="Roll a release out, widen its rollout, or roll back")
async def roll(caller: CallerDep, body: RollRequest) -> ReleasesSummary:
    """The other workers are to have the last serial that all workers were to have, or keep what they run."""

    def roll_out(session: Session, *, by: str) -> ReleasesSummary:
        rollouts.roll(session, rollouts.RELEASES, by=by, percent=body.percent, labels=body.labels, to=body.to)
        return view.summarize_releases(session)

    return await caller.act_on_releases(roll_out)


@router.post("/releases/halt", summary="Halt the rollout of a release")
async def halt(caller: CallerDep, body: HaltRequest) -> ReleasesSummary:
    """Workers that run it keep it; the others are to have the previous one, or keep what they run."""

    def halted(session: Session, *, by: str) -> ReleasesSummary:
        rollouts.halt(session, rollouts.RELEASES, by=by, reason=body.reason)
        return view.summarize_releases(session)

    return await caller.act_on_releases(halted)


@router.post("/releases/resume", summary="Resume a halted rollout of a release")
async def resume(caller: CallerDep) -> ReleasesSummary:
    def resumed(session: Session, *, by: str) -> ReleasesSummary:
        rollouts.resume(session, rollouts.RELEASES, by=by)
        return view.summarize_releases(session)

    return await caller.act_on_releases(resumed)
