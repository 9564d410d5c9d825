"""Where Airflow keeps task logs, and the object stores that it knows."""

from __future__ import annotations

import importlib.util
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


def plugins_folder() -> Path:
    """Return the directory of `[core] plugins_folder`, which may be missing."""
    from airflow.configuration import conf

    return Path(conf.get_mandatory_value("core", "plugins_folder"))


def local_settings_place() -> Path | None:
    """Return the file or the directory of the module `airflow_local_settings`, as Airflow finds it; None: it does not exist."""
    import airflow.settings
    from airflow.sdk import configuration  # noqa: F401  (both put Airflow's directories on Python's path)

    airflow.settings.prepare_syspath_for_config_and_plugins()
    found = importlib.util.find_spec("airflow_local_settings")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent if found.submodule_search_locations else Path(found.origin)


def hides_value_of(name: str) -> bool:
    """Return whether Airflow hides the value of a setting or variable with this name, such as one with `password` in it."""
    from airflow._shared.secrets_masker import should_hide_value_for_key

    return bool(should_hide_value_for_key(name))
