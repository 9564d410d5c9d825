"""The Airflow plugin: mounts the workers' API and people's under the API server. Lazy: the scheduler never imports FastAPI."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class RemotePlugin(AirflowPlugin):  # type: ignore[misc]
    name = "remote"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        from airflow_remote_provider.api.app import create_worker_api
        from airflow_remote_provider.api.ui_v1.app import create_people_api

        return [
            {"app": create_worker_api(), "url_prefix": "/remote/v1", "name": "Remote Worker API"},
            {"app": create_people_api(), "url_prefix": "/remote/ui/v1", "name": "Remote Executor API"},
        ]
