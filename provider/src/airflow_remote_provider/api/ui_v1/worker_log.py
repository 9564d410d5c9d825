"""Routes of worker logs: read, follow, search, download."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query
from starlette.responses import StreamingResponse

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger.views.workers import show_worker
from airflow_remote_provider.settings import settings, silent_after
from airflow_remote_provider.stores.worker_log_lines import MOST_LINES, LogLines, as_download, read_lines
from airflow_remote_provider.stores.worker_logs import WorkerLogStore

router = Routes("workers")

Name = Annotated[str, Path(max_length=100, description="the worker's name")]
Level = Literal["debug", "info", "warning", "error", "critical"]


@router.get("/workers/{name}/log", summary="Read a worker log")
async def read_log(
    caller: CallerDep,
    name: Name,
    after: Annotated[
        int | None, Query(ge=0, lt=1 << 62, description="`next` of the previous answer; without it, the end of the log")
    ] = None,
    most: Annotated[int, Query(ge=1, le=MOST_LINES, description="lines")] = 200,
    contains: Annotated[str, Query(max_length=200, description="filter by text, ignoring case")] = "",
    level: Annotated[Level, Query(description="filter by level: this or a more severe one")] = "debug",
) -> LogLines:
    """Oldest first; with `after`, only newer lines. Requires the permission to manage workers, since it may reveal paths."""
    store, worker_id = await _log_of(caller, name)
    return await caller.pool.blocking(
        lambda: read_lines(store, worker_id, most=most, after=after, contains=contains, level=level)
    )


@router.get(
    "/workers/{name}/log/download",
    summary="Download a worker log",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/plain": {}}, "description": "the part of the log that central keeps"}},
)
async def download_log(caller: CallerDep, name: Name) -> StreamingResponse:
    """As a text file, with at most the newest 100,000 lines."""
    store, worker_id = await _log_of(caller, name)

    headers = {"content-disposition": f'attachment; filename="{name}.log"', "cache-control": "private, no-store"}
    return StreamingResponse(as_download(store, worker_id), media_type="text/plain; charset=utf-8", headers=headers)


async def _log_of(caller: CallerDep, name: str) -> tuple[WorkerLogStore, str]:
    worker = await caller.manage(show_worker, name, silent_after=silent_after())
    return WorkerLogStore(settings().worker_log_bytes), worker.id
