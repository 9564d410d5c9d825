"""Serves the built dashboard. Public, as Airflow's own page is: it holds no fact; those come through people's API."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

FILES = Path(__file__).parent.parent / "static"


def create_static_app() -> FastAPI:
    """Return the app that the plugin mounts. In a checkout whose `ui/` was never built it has nothing."""
    app = FastAPI(title="Remote Executor dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    if FILES.is_dir():
        app.mount("/", StaticFiles(directory=FILES))
    return app
