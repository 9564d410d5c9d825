"""Serves the built dashboard. It is public, like Airflow's own page: it contains no data, which it gets from the REST API."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles


def create_static_app(files: Path) -> FastAPI:
    """Return the app that the plugin mounts; it serves the files in the directory *files*."""
    app = FastAPI(title="Remote Executor dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/", StaticFiles(directory=files))
    return app
