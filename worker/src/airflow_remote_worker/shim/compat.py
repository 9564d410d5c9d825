"""Hides the differences between the Airflow versions of a runtime (3.3 with Task SDK 1.3, 3.4 with 1.4), and Airflow's private
names.

Importing this module does not import Airflow.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

FIRST_WITH_HTTPX2 = (1, 4)


def http_library_of(task_sdk: str) -> str:
    """Return the name of this Task SDK version's HTTP library, whose transports and responses alone its client accepts.

    httpx2 has the same class names as httpx. A runtime may have both, so the version decides.
    """
    major, minor, *_ = task_sdk.split(".")
    return "httpx2" if (int(major), int(minor)) >= FIRST_WITH_HTTPX2 else "httpx"


def _installed_http_library() -> str:
    try:
        return http_library_of(version("apache-airflow-task-sdk"))
    except PackageNotFoundError:  # the worker's own environment, where tests of the transport run
        return "httpx"


if TYPE_CHECKING:
    import httpx as httpx  # so that other modules may import it from here
else:
    httpx = import_module(_installed_http_library())


def server_terminated() -> str:
    """Return the supervisor's final state for a task that it ended because of the answer to a heartbeat."""
    from airflow.sdk.execution_time.supervisor import SERVER_TERMINATED

    return str(SERVER_TERMINATED)


def dag_module_name(path: str) -> str:
    """Return the name under which Airflow imports the Dag file at *path*."""
    try:
        from airflow.sdk._shared.module_loading.dag_file import get_unique_dag_module_name
    except ImportError:  # before Airflow 3.4
        from airflow.utils.file import get_unique_dag_module_name
    return str(get_unique_dag_module_name(path))


def redact(value: Any) -> Any:
    """Return *value* with every secret masked that this process has loaded."""
    try:
        from airflow.sdk._shared.secrets_masker import redact as mask
    except ImportError:  # then no secret was loaded either
        return value
    return mask(value)


def mask_secret(value: Any, name: str | None = None) -> None:
    """Mask *value* in logs from now on."""
    from airflow.sdk._shared.secrets_masker import mask_secret as mask

    mask(value, name)


def task_instance_of(content: dict[str, Any]) -> Any:
    """Return the Task SDK's task instance with this *content*. Raises: pydantic's ValidationError."""
    from airflow.sdk.api.datamodels._generated import TaskInstance

    return TaskInstance.model_validate(content)


def bundle_of(name: str) -> Any:
    """Return the Task SDK's reference to a Dag bundle."""
    from airflow.sdk.api.datamodels._generated import BundleInfo

    return BundleInfo(name=name)


class EncodedArguments(Exception):
    """The arguments of a callback have an encoding that this runtime cannot decode."""


def encoding_of_callback(encoding: str | None) -> dict[str, Any]:
    """Return the additional arguments of `supervise_callback` for callback arguments with this *encoding*; None: not encoded.

    Raises:
        EncodedArguments: the Task SDK is older than 1.4.
    """
    if encoding is None:
        return {}
    from inspect import signature

    from airflow.sdk.execution_time.callback_supervisor import supervise_callback

    name = "callback_kwargs_encoding"
    if name not in signature(supervise_callback).parameters:
        raise EncodedArguments(
            f"central's Airflow encodes the arguments of callbacks ({encoding}), and this worker's runtime cannot decode them: "
            f"it has Task SDK {version('apache-airflow-task-sdk')}; install Airflow 3.4 into the runtime"
        )
    return {name: encoding}
