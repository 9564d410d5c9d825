"""Configures Airflow for one job: the name of its host, the path of its bundle, the coordinator of its task."""

from __future__ import annotations

import json
import os
from typing import Any

COORDINATOR = "airflow-remote"
WORKER_NAME = "AIRFLOW_REMOTE_WORKER_NAME"


def name_host(worker_name: str) -> None:
    """Make Airflow show the worker's name as the host."""
    from airflow.sdk.configuration import conf

    os.environ[WORKER_NAME] = worker_name
    # Not through the environment: an interpreter that the task starts (`run_as_user`) inherits it, but can't import us.
    os.environ.pop("AIRFLOW__CORE__HOSTNAME_CALLABLE", None)
    conf.set("core", "hostname_callable", f"{__name__}.{hostname.__name__}")


def point_at_bundle(bundle_path: str, *, bundle_name: str) -> None:
    """Make Airflow find the bundle at *bundle_path*."""
    set_json(
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST",
        [
            {
                "name": bundle_name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": bundle_path, "refresh_interval": 0},
            }
        ],
    )


def coordinate(queue: str) -> None:
    """Make our coordinator run the tasks of *queue*."""
    set_json(
        "AIRFLOW__SDK__COORDINATORS",
        {COORDINATOR: {"classpath": "airflow_remote_worker.shim.coordinator.RemoteCoordinator"}},
    )
    set_json("AIRFLOW__SDK__QUEUE_TO_COORDINATOR", {queue: COORDINATOR})


def set_json(variable: str, value: Any) -> None:
    # Airflow expands `$NAME` in the values of such variables, but not an escaped dollar sign.
    os.environ[variable] = json.dumps(value).replace("$", "\\u0024")


def hostname() -> str:
    """Return the name that Airflow shows as the task's host (`[core] hostname_callable`)."""
    return os.environ[WORKER_NAME]
