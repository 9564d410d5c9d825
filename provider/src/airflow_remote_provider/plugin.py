"""The Airflow plugin: mounts the workers' API, people's and the dashboard. Lazy: the scheduler never imports FastAPI."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_remote_provider import __version__

STATIC = "/remote/static"


class RemotePlugin(AirflowPlugin):  # type: ignore[misc]
    name = "remote"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        from airflow_remote_provider.api.unavailable import app_or_reason

        return [
            {"app": app_or_reason(name, create), "url_prefix": prefix, "name": name}
            for prefix, name, create in (
                (STATIC, "Remote Executor dashboard", _static_app),
                ("/remote/v1", "Remote Worker API", _worker_api),
                ("/remote/ui/v1", "Remote Executor API", _people_api),
            )
        ]

    @cached_property
    def react_apps(self) -> list[dict[str, Any]]:
        """The dashboard in the menu *Browse*, a line on the home page, a tab of each task instance: one file has them all.

        It takes its libraries from Airflow's own page, which finds each by its name.
        """
        # Relative, so that it holds below any sub-path; the version, for nothing says how long it may be kept.
        bundle = {"bundle_url": f"{STATIC.lstrip('/')}/remote-workers.js?v={__version__}"}
        return [
            {"name": "Remote Workers", "destination": "nav", "category": "browse", "url_route": "remote-workers", **bundle},
            {"name": "Remote Workers in a line", "destination": "dashboard", **bundle},
            {"name": "Remote job", "destination": "task_instance", "url_route": "remote-job", **bundle},
        ]


def _static_app() -> Any:
    from airflow_remote_provider.api.static import create_static_app

    return create_static_app()


def _worker_api() -> Any:
    from airflow_remote_provider.api.app import create_worker_api

    return create_worker_api()


def _people_api() -> Any:
    from airflow_remote_provider.api.ui_v1.app import create_people_api

    return create_people_api()
