"""One wish for many workers: each is done by itself, and one that is refused stops no other."""

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
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.api.ui_v1.words import Reason, Wish
from airflow_remote_provider.api.ui_v1.workers import team_of
from airflow_remote_provider.ledger import restarts, rotation, suspension, workers
from airflow_remote_provider.ledger.errors import LedgerError

router = Routes("workers")

MOST_WORKERS = 500

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]


class BulkWish(Wish):
    action: Literal["serve", "pause", "drain", "rotate", "restart", "suspend", "unsuspend", "acknowledge", "revoke", "remove"]
    names: Annotated[list[Name], Field(min_length=1, max_length=MOST_WORKERS)]
    reason: Reason = ""
    """Of serve, pause, drain, restart and suspend."""
    lasts_s: Annotated[float, Field(gt=0, le=workers.LONGEST_PAUSE.total_seconds())] | None = None
    """Of pause: after so many seconds it ends by itself."""


class Done(BaseModel):
    name: str
    problem: Problem | None
    """Why nothing was done to it; null: it was done."""


class BulkDone(BaseModel):
    done: int
    refused: int
    workers: list[Done]
    """In the order in which they were named, each once."""


@router.post("/workers/actions", summary="Do the same to many workers")
async def act(caller: CallerDep, wish: BulkWish) -> BulkDone:
    """Each by itself, each audited; one that is refused stops no other."""
    await caller.insist_on_managing()
    verb = _verb(wish)
    told = [Done(name=name, problem=await _try(caller, verb, name)) for name in dict.fromkeys(wish.names)]
    refused = sum(one.problem is not None for one in told)
    return BulkDone(done=len(told) - refused, refused=refused, workers=told)


async def _try(caller: CallerDep, verb: Callable[..., None], name: str) -> Problem | None:
    try:
        await caller.act(verb, name, team=partial(team_of, name))
    except LedgerError as error:
        return problem(STATUS[error.code], str(error), error.code.value)
    except Forbidden as error:
        return problem(403, str(error), "forbidden")
    return None


def _verb(wish: BulkWish) -> Callable[..., None]:
    if wish.action in ("serve", "pause", "drain"):
        lasts = None if wish.lasts_s is None else timedelta(seconds=wish.lasts_s)
        return partial(_intend, IntentMode(wish.action), lasts, wish.reason)
    verbs: dict[str, Callable[..., None]] = {
        "rotate": rotation.ask_to_rotate,
        "restart": partial(restarts.ask_to_restart, reason=wish.reason),
        "suspend": partial(suspension.suspend, reason=wish.reason),
        "unsuspend": suspension.unsuspend,
        "acknowledge": workers.acknowledge,
        "revoke": workers.revoke_worker,
        "remove": workers.remove_worker,
    }
    return verbs[wish.action]


def _intend(mode: IntentMode, lasts: timedelta | None, reason: str, session: Any, name: str, *, by: str) -> None:
    workers.set_intent(session, name, mode, by=by, reason=reason, lasts=lasts)
