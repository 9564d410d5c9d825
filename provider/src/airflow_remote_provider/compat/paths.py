"""Where Airflow keeps task logs, and the object stores that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def log_file(relative_path: str) -> Path:
    """Return the path where Airflow's UI looks for this log (`[logging] base_log_folder`), made with Airflow's permissions."""
    from airflow.sdk.log import init_log_file

    return init_log_file(relative_path)  # type: ignore[no-any-return]


def base_log_folder() -> Path:
    from airflow.configuration import conf

    return Path(conf.get_mandatory_value("logging", "base_log_folder"))


def open_object_storage(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of *url* and the path in it, without a slash at the end; as Airflow's `ObjectStoragePath`.

    The URL may name a connection of Airflow's: `s3://my_connection@bucket/blobs`.
    """
    from airflow.sdk import ObjectStoragePath

    path = ObjectStoragePath(url)
    return path.fs, path.path.rstrip("/")
