"""Routes of enrolment tokens."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import Path, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed
from airflow_remote_provider.api.ui_v1.request_types import MOST_NAMES, BundleGlob, LabelPart, QueueName, RequestBody, WorkerName
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.api.ui_v1.workers import team_of
from airflow_remote_provider.ledger import credentials
from airflow_remote_provider.ledger.credentials import LONGEST_LIFE, NewToken, TokenRow, no_such_token, no_worker_to_replace
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.views.scope import Scope

router = Routes("enrolment tokens")

Pattern = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
Team = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[^\x00-\x1f]+$")]
Network = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=50)]


@router.get("/enrolment-tokens", summary="List the enrolment tokens, without their secrets")
async def list_tokens(caller: CallerDep) -> Listed[TokenRow]:
    """Newest first. Requires the permission to manage workers."""
    return Listed(items=await caller.manage(_list_tokens), next=None)


def _list_tokens(session: Session, *, scope: Scope) -> list[TokenRow]:
    rows = credentials.list_tokens(session)
    return [row for row in rows if scope.includes_team(row.team)]


class TokenRequest(RequestBody):
    """Which workers may join with the token, and what they may do."""

    queues: Annotated[list[QueueName], Field(max_length=MOST_NAMES)] = []
    """At least one, unless the token replaces a worker."""
    name_pattern: Pattern = "*"
    """Pattern of the worker names that may join with it, such as `edge-*`."""
    team: Team | None = None
    labels: Annotated[dict[LabelPart, LabelPart], Field(max_length=MOST_NAMES)] = {}
    bundles: Annotated[list[BundleGlob], Field(max_length=MOST_NAMES)] | None = None
    """Globs of the Dag bundles whose jobs its workers may be offered, at least one; null: any."""
    networks: Annotated[list[Network], Field(max_length=MOST_NAMES)] = []
    """Networks from which it may be used, such as `10.1.0.0/16`; empty: any."""
    uses: Annotated[int, Field(ge=1, le=100_000)] = 1
    expires_s: Annotated[float, Field(gt=0, le=LONGEST_LIFE.total_seconds())] = 3600.0
    replaces: WorkerName | None = None
    """Name of a worker whose machine was rebuilt. The token is then for that name and one use, and gives that worker's team,
    labels, bundles and, unless `queues` has some, queues. The worker's old credential ends when the token is used."""


class MadeToken(BaseModel):
    token: str
    """The secret itself. It is shown only here."""
    central: str
    """`[api] base_url`, where workers join; empty if it is not set."""
    about: TokenRow


@router.post("/enrolment-tokens", status_code=201, summary="Make an enrolment token")
async def create_token(caller: CallerDep, body: TokenRequest, response: Response) -> MadeToken:
    """Only this answer shows the token's secret."""

    def made(session: Session, *, by: str) -> MadeToken:
        new = NewToken(
            queues=list(dict.fromkeys(body.queues)),
            name_pattern=body.name_pattern,
            team=body.team,
            labels=body.labels,
            bundles=body.bundles,
            networks=body.networks,
            uses=body.uses,
            lifetime=timedelta(seconds=body.expires_s),
            created_by=by,
            replaces=body.replaces,
        )
        token, row = credentials.create_token(session, new)
        return MadeToken(token=token, central=compat.base_url().rstrip("/"), about=row)

    response.headers["cache-control"] = "no-store"

    def team(session: Session, scope: Scope) -> str | None:
        if body.replaces is None:
            return body.team
        try:
            return team_of(body.replaces, session, scope)
        except NotFound:
            raise no_worker_to_replace(body.replaces) from None

    return await caller.act(made, team=team)


@router.delete("/enrolment-tokens/{token_id}", status_code=204, summary="Revoke a token")
async def revoke_token(caller: CallerDep, token_id: Annotated[str, Path(max_length=36)]) -> None:
    """Workers that have joined with it are kept."""
    await caller.act(credentials.revoke_token, token_id, team=partial(_team_of, token_id))


def _team_of(token_id: str, session: Session, scope: Scope) -> str | None:
    teams = {row.id: row.team for row in _list_tokens(session, scope=scope)}
    if token_id not in teams:
        raise no_such_token(token_id)
    return teams[token_id]
