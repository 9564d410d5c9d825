"""Server-sent events: what has changed, so that who shows it reads it anew. Never what it has become: that takes rights."""

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
"""Who hears nothing for longer knows that something on the way holds the stream back."""
LONGEST_S = 300.0
"""Browsers come back by themselves; then the rights are looked at anew."""
BACK_AFTER_MS = 2000

MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@router.get(
    "/live",
    summary="Hear what changes",
    response_class=StreamingResponse,
    responses={200: {"description": "the stream", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def live(
    caller: CallerDep,
    request: Request,
    lasts_s: Annotated[float, Query(ge=1, le=LONGEST_S, description="when the stream ends, in seconds")] = LONGEST_S,
) -> StreamingResponse:
    """Server-sent events. `changed`: some of workers, jobs, audit, accesses, one word each. `beat`: nothing has."""
    await caller.insist_on_seeing()
    watch: Watch = request.app.state.watch
    watch.insist_on_room(caller.name)
    return StreamingResponse(_told(watch, caller.name, lasts_s), media_type=MEDIA_TYPE, headers=HEADERS)


async def _told(watch: Watch, user: str, lasts_s: float) -> AsyncIterator[str]:
    ends = asyncio.get_running_loop().time() + lasts_s
    with watch.stream(user) as stream:
        yield f"retry: {BACK_AFTER_MS}\nevent: beat\ndata: \n\n"
        while stream.is_open and (left_s := ends - asyncio.get_running_loop().time()) > 0:
            changed = await stream.changed(min(left_s, BEAT_EVERY_S))
            yield f"event: {'changed' if changed else 'beat'}\ndata: {' '.join(sorted(changed))}\n\n"
