"""The Airflow plugin: mounts the worker API, the REST API and the dashboard. Lazy, so the scheduler never imports FastAPI."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_remote_provider import __version__
from airflow_remote_provider.dashboard import BUNDLE, FILES, explain_missing

log = logging.getLogger(__name__)

STATIC = "/remote/static"


class RemotePlugin(AirflowPlugin):  # type: ignore[misc]
    name = "remote"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        from airflow_remote_provider.api.unavailable import create_or_explain

        apps = [
            ("/remote/v1", "Remote Worker API", _worker_api),
            ("/remote/ui/v1", "Remote Executor API", _rest_api),
        ]
        if explain_missing() is None:
            apps.append((STATIC, "Remote Executor dashboard", _static_app))
        return [{"app": create_or_explain(name, create), "url_prefix": prefix, "name": name} for prefix, name, create in apps]

    @cached_property
    def react_apps(self) -> list[dict[str, Any]]:
        """The dashboard in the menu *Browse*, the summary on the home page, the tab of each task instance: all in one file.

        It uses the libraries of Airflow's own page, which finds each app by its name. Without the built file no app is
        registered, because an app whose file can't be loaded shows *404 Page Not Found* in place of Airflow's home page.
        """
        missing = explain_missing()
        if missing is not None:
            log.warning("Remote Executor: %s", missing)
            return []
        # Relative, so that it works below any sub-path. With the version, because the response has no cache lifetime.
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


def _rest_api() -> Any:
    from airflow_remote_provider.api.ui_v1.app import create_rest_api

    return create_rest_api()
