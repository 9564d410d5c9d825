"""The route of actions on many workers. Each worker is changed separately; a refusal does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal

from airflow_remote_protocol.errors import STATUS
from airflow_remote_protocol.messages import IntentMode
from pydantic import BaseModel, Field, StringConstraints

from airflow_remote_provider.api.ui_v1.caller import CallerDep, Forbidden
from airflow_remote_provider.api.ui_v1.problems import Problem, problem
from airflow_remote_provider.api.ui_v1.request_types import Reason, RequestBody
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.api.ui_v1.workers import team_of
from airflow_remote_provider.ledger import releases, restarts, rotation, suspension, workers
from airflow_remote_provider.ledger.errors import LedgerError

router = Routes("workers")

MOST_WORKERS = 500

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]


class BulkRequest(RequestBody):
    action: Literal[
        "serve", "pause", "drain", "rotate", "restart", "update", "suspend", "unsuspend", "acknowledge", "revoke", "remove"
    ]
    names: Annotated[list[Name], Field(min_length=1, max_length=MOST_WORKERS)]
    reason: Reason = ""
    """For serve, pause, drain, restart and suspend."""
    lasts_s: Annotated[float, Field(gt=0, le=workers.LONGEST_PAUSE.total_seconds())] | None = None
    """For pause: its duration in seconds; null: until it is ended."""


class Done(BaseModel):
    name: str
    problem: Problem | None
    """Why the action was refused; null if it was done."""


class BulkDone(BaseModel):
    done: int
    refused: int
    workers: list[Done]
    """In the order of the request, each worker once."""


@router.post("/workers/actions", summary="Act on many workers")
async def act(caller: CallerDep, body: BulkRequest) -> BulkDone:
    """Each worker is changed and audited separately; a refusal does not stop the others."""
    await caller.require_manage()
    verb = _verb(body)
    results = [Done(name=name, problem=await _try(caller, verb, name)) for name in dict.fromkeys(body.names)]
    refused = sum(one.problem is not None for one in results)
    return BulkDone(done=len(results) - refused, refused=refused, workers=results)


async def _try(caller: CallerDep, verb: Callable[..., None], name: str) -> Problem | None:
    try:
        await caller.act(verb, name, team=partial(team_of, name))
    except LedgerError as error:
        return problem(STATUS[error.code], str(error), error.code.value)
    except Forbidden as error:
        return problem(403, str(error), "forbidden")
    return None


def _verb(body: BulkRequest) -> Callable[..., None]:
    if body.action in ("serve", "pause", "drain"):
        lasts = None if body.lasts_s is None else timedelta(seconds=body.lasts_s)
        return partial(_intend, IntentMode(body.action), lasts, body.reason)
    verbs: dict[str, Callable[..., None]] = {
        "rotate": rotation.request_rotation,
        "restart": partial(restarts.request_restart, reason=body.reason),
        "update": releases.request_update,
        "suspend": partial(suspension.suspend, reason=body.reason),
        "unsuspend": suspension.unsuspend,
        "acknowledge": workers.acknowledge,
        "revoke": workers.revoke_worker,
        "remove": workers.remove_worker,
    }
    return verbs[body.action]


def _intend(mode: IntentMode, lasts: timedelta | None, reason: str, session: Any, name: str, *, by: str) -> None:
    workers.set_intent(session, name, mode, by=by, reason=reason, lasts=lasts)
