"""Server-sent events that name what has changed, so that a client reads it again. They hold no data, which needs permissions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import StreamingResponse

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.pulse import Watch
from airflow_remote_provider.api.ui_v1.routes import Routes

router = Routes("live")

BEAT_EVERY_S = 10.0
"""A client that receives nothing for longer knows that something on the way buffers the stream."""
LONGEST_S = 300.0
"""Browsers reconnect by themselves; the permissions are then checked again."""
BACK_AFTER_MS = 2000

MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@router.get(
    "/live",
    summary="Stream the changes",
    response_class=StreamingResponse,
    responses={200: {"description": "the stream", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def live(
    caller: CallerDep,
    request: Request,
    lasts_s: Annotated[float, Query(ge=1, le=LONGEST_S, description="duration of the stream in seconds")] = LONGEST_S,
) -> StreamingResponse:
    """Server-sent events. `changed` names what changed (workers, jobs, audit, accesses, bundles, runtimes); `beat`: no change."""
    await caller.require_read()
    watch: Watch = request.app.state.watch
    watch.check_room(caller.name)
    return StreamingResponse(_events(watch, caller.name, lasts_s), media_type=MEDIA_TYPE, headers=HEADERS)


async def _events(watch: Watch, user: str, lasts_s: float) -> AsyncIterator[str]:
    ends = asyncio.get_running_loop().time() + lasts_s
    with watch.stream(user) as stream:
        yield f"retry: {BACK_AFTER_MS}\nevent: beat\ndata: \n\n"
        while stream.is_open and (left_s := ends - asyncio.get_running_loop().time()) > 0:
            changed = await stream.changed(min(left_s, BEAT_EVERY_S))
            yield f"event: {'changed' if changed else 'beat'}\ndata: {' '.join(sorted(changed))}\n\n"
