"""The Airflow plugin: mounts the workers' API, people's and the dashboard. Lazy: the scheduler never imports FastAPI."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_remote_provider import __version__
from airflow_remote_provider.dashboard import BUNDLE, FILES, why_missing

log = logging.getLogger(__name__)

STATIC = "/remote/static"


class RemotePlugin(AirflowPlugin):  # type: ignore[misc]
    name = "remote"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        from airflow_remote_provider.api.unavailable import app_or_reason

        apps = [
            ("/remote/v1", "Remote Worker API", _worker_api),
            ("/remote/ui/v1", "Remote Executor API", _people_api),
        ]
        if why_missing() is None:
            apps.append((STATIC, "Remote Executor dashboard", _static_app))
        return [{"app": app_or_reason(name, create), "url_prefix": prefix, "name": name} for prefix, name, create in apps]

    @cached_property
    def react_apps(self) -> list[dict[str, Any]]:
        """The dashboard in the menu *Browse*, a line on the home page, a tab of each task instance: one file has them all.

        It takes its libraries from Airflow's own page, which finds each by its name. Without the built file there is none: a
        registered app whose file can't be loaded shows *404 Page Not Found* in place of Airflow's home page.
        """
        missing = why_missing()
        if missing is not None:
            log.warning("Remote Executor: %s", missing)
            return []
        # Relative, so that it holds below any sub-path; the version, for nothing says how long it may be kept.
        bundle = {"bundle_url": f"{STATIC.lstrip('/')}/{BUNDLE}?v={__version__}"}
        return [
            {"name": "Remote Workers", "destination": "nav", "category": "browse", "url_route": "remote-workers", **bundle},
            {"name": "Remote Workers summary", "destination": "dashboard", **bundle},
            {"name": "Remote job", "destination": "task_instance", "url_route": "remote-job", **bundle},
        ]


def _static_app() -> Any:
    from airflow_remote_provider.api.static import create_static_app

    return create_static_app(FILES)


def _worker_api() -> Any:
    from airflow_remote_provider.api.worker_v1.app import create_worker_api

    return create_worker_api()


def _people_api() -> Any:
    from airflow_remote_provider.api.ui_v1.app import create_people_api

    return create_people_api()
