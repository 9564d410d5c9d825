"""Routes of signed statements about trees: what the owners of keys say that a tree is."""

from __future__ import annotations

from typing import Annotated

from airflow_remote_protocol.messages import MAX_STATEMENT
from fastapi import Path
from pydantic import Field
from sqlalchemy.orm import Session

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed
from airflow_remote_provider.api.ui_v1.request_types import RequestBody
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger import statements
from airflow_remote_provider.ledger.statements import SignedStatement
from airflow_remote_provider.ledger.views.scope import Scope

router = Routes("statements")

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="the digest of the tree, or of a list of keys")]


class StatementRequest(RequestBody):
    envelope: Annotated[str, Field(min_length=1, max_length=MAX_STATEMENT)]
    """An in-toto statement in a DSSE envelope, as JSON."""


@router.get("/trees/{digest}/statements", summary="List what was signed about a tree")
async def list_statements(caller: CallerDep, digest: Digest) -> Listed[SignedStatement]:
    """As the statements say themselves: central verifies no signature."""

    def listed(session: Session, *, scope: Scope) -> list[SignedStatement]:
        return statements.of_tree(session, digest)

    return Listed(items=await caller.manage(listed), next=None)


@router.post("/trees/{digest}/statements", status_code=201, summary="Add a signed statement about a tree")
async def add_statement(caller: CallerDep, digest: Digest, body: StatementRequest) -> SignedStatement:
    """Workers that have pinned its key use the tree from then on. It replaces an earlier one of the same keys."""
    return await caller.act(statements.add, digest, body.envelope, team=lambda session, scope: None)
