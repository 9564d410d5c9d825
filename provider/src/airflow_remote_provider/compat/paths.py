"""Where Airflow keeps task logs."""

from __future__ import annotations

from pathlib import Path


def log_file(relative_path: str) -> Path:
    """Return the path where Airflow's UI looks for this log (`[logging] base_log_folder`), made with Airflow's permissions."""
    from airflow.sdk.log import init_log_file

    return init_log_file(relative_path)  # type: ignore[no-any-return]


def base_log_folder() -> Path:
    from airflow.configuration import conf

    return Path(conf.get_mandatory_value("logging", "base_log_folder"))
