"""Routes of the audit, of the accesses of jobs, and of the grants that a Dag's tasks should declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Path, Query
from sqlalchemy.orm import Session

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed, PageDep
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger import grants
from airflow_remote_provider.ledger.audit import AuditKind
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.grants import Answer
from airflow_remote_provider.ledger.views import accesses
from airflow_remote_provider.ledger.views import audit as view
from airflow_remote_provider.ledger.views.accesses import AccessFilter, AccessRow
from airflow_remote_provider.ledger.views.audit import AuditFilter, AuditRow
from airflow_remote_provider.ledger.views.scope import Scope

router = Routes("audit")

WorkerName = Annotated[str, Query(max_length=100, description="a worker's name")]
JobId = Annotated[str, Query(max_length=36)]


@router.get("/audit", summary="List the audit")
async def list_entries(
    caller: CallerDep,
    page: PageDep,
    kind: Annotated[Sequence[AuditKind], Query()] = (),
    worker: WorkerName = "",
    job_id: JobId = "",
) -> Listed[AuditRow]:
    """Newest first. Requires the permission to manage workers."""
    only = AuditFilter(kind=[one.value for one in kind], worker=worker, job_id=job_id)
    return Listed.of(await caller.manage(view.list_entries, only=only, page=page))


@router.get("/accesses", summary="List the accesses of jobs")
async def list_accesses(
    caller: CallerDep,
    page: PageDep,
    answer: Annotated[Sequence[Answer], Query()] = (),
    worker: WorkerName = "",
    job_id: JobId = "",
    dag_id: Annotated[str, Query(max_length=1000)] = "",
) -> Listed[AccessRow]:
    """The secrets that jobs read, and all denied or audited accesses. Names only, never values. Newest first."""
    only = AccessFilter(dag_id=dag_id, job_id=job_id, worker=worker, answers=[one.value for one in answer])
    return Listed.of(await caller.read(accesses.list_accesses, only=only, page=page))


@router.get("/dags/{dag_id}/suggestion", summary="Suggest what a Dag's tasks should declare")
async def suggest(caller: CallerDep, dag_id: Annotated[str, Path(max_length=1000)]) -> dict[str, dict[str, list[str]]]:
    """By task, then by kind of grant: the names that its jobs were denied, and those that it declares now."""

    def suggested(session: Session, *, scope: Scope) -> dict[str, dict[str, list[str]]]:
        if scope.dags is not None and dag_id not in scope.dags:
            raise NotFound(f"there is no Dag {dag_id[:100]!r} that you may read")
        found = grants.suggest(session, dag_id)
        return {task: {kind.value: names for kind, names in kinds.items()} for task, kinds in found.items()}

    return await caller.read(suggested)
