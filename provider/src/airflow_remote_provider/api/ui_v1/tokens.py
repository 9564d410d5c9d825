"""Enrolment tokens: made, shown once, listed, revoked."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import Path, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy.orm import Session

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.api.ui_v1.words import MOST_NAMES, BundleGlob, LabelPart, QueueName, Wish, WorkerName
from airflow_remote_provider.api.ui_v1.workers import team_of
from airflow_remote_provider.ledger import credentials
from airflow_remote_provider.ledger.credentials import LONGEST_LIFE, NewToken, TokenRow, no_such_token, no_worker_to_replace
from airflow_remote_provider.ledger.errors import Unknown
from airflow_remote_provider.ledger.views.scope import Scope

router = Routes("enrolment tokens")

Pattern = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
Team = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[^\x00-\x1f]+$")]
Network = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=50)]


@router.get("/enrolment-tokens", summary="List the enrolment tokens, without their secrets")
async def list_tokens(caller: CallerDep) -> Listed[TokenRow]:
    """The newest first. For those who may manage workers."""
    return Listed(items=await caller.manage(_list_tokens), next=None)


def _list_tokens(session: Session, *, scope: Scope) -> list[TokenRow]:
    rows = credentials.list_tokens(session)
    return [row for row in rows if scope.includes_team(row.team)]


class TokenWish(Wish):
    """What workers may join with the token, and what they may do then."""

    queues: Annotated[list[QueueName], Field(max_length=MOST_NAMES)] = []
    """One at least, unless it replaces a worker."""
    name_pattern: Pattern = "*"
    """Names that may join with it, such as `edge-*`."""
    team: Team | None = None
    labels: Annotated[dict[LabelPart, LabelPart], Field(max_length=MOST_NAMES)] = {}
    bundles: Annotated[list[BundleGlob], Field(max_length=MOST_NAMES)] | None = None
    """Globs of the Dag bundles of whose jobs its workers may be offered, one at least; null: of any."""
    networks: Annotated[list[Network], Field(max_length=MOST_NAMES)] = []
    """From where it may be used, such as `10.1.0.0/16`; none: from anywhere."""
    uses: Annotated[int, Field(ge=1, le=100_000)] = 1
    expires_s: Annotated[float, Field(gt=0, le=LONGEST_LIFE.total_seconds())] = 3600.0
    replaces: WorkerName | None = None
    """Name of the worker whose machine was rebuilt: the token is for that name and one use, and gives that worker's team, labels,
    bundles and, unless some are named, queues; that worker's credential ends when it is used."""


class MadeToken(BaseModel):
    token: str
    """The secret itself, this once."""
    about: TokenRow


@router.post("/enrolment-tokens", status_code=201, summary="Make an enrolment token")
async def create_token(caller: CallerDep, wish: TokenWish, response: Response) -> MadeToken:
    """The only answer in which its secret is shown."""

    def made(session: Session, *, by: str) -> MadeToken:
        new = NewToken(
            queues=list(dict.fromkeys(wish.queues)),
            name_pattern=wish.name_pattern,
            team=wish.team,
            labels=wish.labels,
            bundles=wish.bundles,
            networks=wish.networks,
            uses=wish.uses,
            lifetime=timedelta(seconds=wish.expires_s),
            created_by=by,
            replaces=wish.replaces,
        )
        token, row = credentials.create_token(session, new)
        return MadeToken(token=token, about=row)

    response.headers["cache-control"] = "no-store"

    def team(session: Session, scope: Scope) -> str | None:
        if wish.replaces is None:
            return wish.team
        try:
            return team_of(wish.replaces, session, scope)
        except Unknown:
            raise no_worker_to_replace(wish.replaces) from None

    return await caller.act(made, team=team)


@router.delete("/enrolment-tokens/{token_id}", status_code=204, summary="Revoke a token")
async def revoke_token(caller: CallerDep, token_id: Annotated[str, Path(max_length=36)]) -> None:
    """Workers that joined with it stay."""
    await caller.act(credentials.revoke_token, token_id, team=partial(_team_of, token_id))


def _team_of(token_id: str, session: Session, scope: Scope) -> str | None:
    teams = {row.id: row.team for row in _list_tokens(session, scope=scope)}
    if token_id not in teams:
        raise no_such_token(token_id)
    return teams[token_id]
