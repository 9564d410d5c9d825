"""Runs one of our apps under uvicorn on a loopback port, for the duration of a test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

if TYPE_CHECKING:
    from typing_extensions import Self


class Serving:
    """Serves *api* below *prefix*, as Airflow does, and runs its lifespan."""

    def __init__(self, api: FastAPI, prefix: str, *, certificate: Path | None = None) -> None:
        """With a *certificate*, a PEM file that also contains its key, serve with TLS."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

        @asynccontextmanager
        async def lifespan(outer: FastAPI) -> AsyncIterator[None]:
            async with api.router.lifespan_context(api):
                yield

        outer = FastAPI(lifespan=lifespan)
        outer.mount(prefix, api)
        self.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            outer,
            host="127.0.0.1",
            port=self.port,
            log_level="warning",
            lifespan="on",
            ssl_certfile=certificate,
            ssl_keyfile=certificate,
            timeout_graceful_shutdown=1,  # don't wait for clients that keep their connection open
        )
        self._server = uvicorn.Server(config)
        # A daemon thread: a server that never started must not keep the tests' process alive.
        self._thread = threading.Thread(target=self._server.run, name="central", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 90
        while not self._server.started:
            assert self._thread.is_alive() and time.monotonic() < deadline, "central did not start"
            time.sleep(0.02)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.should_exit = True
        self._thread.join(30)
