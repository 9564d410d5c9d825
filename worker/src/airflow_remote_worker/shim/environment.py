"""Sets the environment variables that Airflow reads while it is imported, the same for every job. Does not import Airflow.

:mod:`configuration` sets what differs from job to job.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import sys
from pathlib import Path

from airflow_remote_worker.shim import task_settings

FORCED = {
    # Makes `import airflow` create no database engine; preload() does the other steps that tasks need.
    "_AIRFLOW__AS_LIBRARY": "1",
    # Heartbeats end in our transport. Each one also reconnects to the daemon, so the period limits how late a stop arrives.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # The client would sleep through a stop between tries. Our transport retries instead.
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "1",
    # Logs go to central through the daemon. A site's own upload would need a connection before the task can read one.
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
    # preload() accepts any executor. If a later Airflow checks elsewhere, ours is at least known. The class isn't imported.
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor,RemoteExecutor:airflow_remote_provider.executor.RemoteExecutor",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # Airflow 3.4 would otherwise run each task in a new interpreter, without preload().
    "AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER": "False",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
}

DEFAULTS = {
    # How long a grandchild that holds the task's stdout may occupy the slot after the task's end (Airflow: 60 s).
    "AIRFLOW__WORKERS__SOCKET_CLEANUP_TIMEOUT": "10",
}


def prepare() -> None:
    """Set the variables. Call it before anything imports airflow."""
    task_settings.apply()
    os.environ.update(FORCED)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def prepare_path() -> None:
    """Make the site's `config` and `plugins` folders importable. Call it before anything imports airflow.

    Airflow does that too, but may import the classes that the settings name (secrets backend, XCom backend) earlier.
    """
    for folder in (airflow_home() / "config", plugins_folder()):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def airflow_home() -> Path:
    """Return the folder of the runtime's settings, as Airflow finds it."""
    return Path(os.path.expandvars(os.environ.get("AIRFLOW_HOME", "~/airflow"))).expanduser()


def plugins_folder() -> Path:
    """Return `[core] plugins_folder`, as Airflow finds it."""
    home = airflow_home()
    named = os.environ.get("AIRFLOW__CORE__PLUGINS_FOLDER", "")
    if not named:
        settings = configparser.ConfigParser(interpolation=None, strict=False)
        with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):  # Airflow reports what is wrong with it
            settings.read(os.environ.get("AIRFLOW_CONFIG") or home / "airflow.cfg", encoding="utf-8")
        named = settings.get("core", "plugins_folder", fallback="").replace("{AIRFLOW_HOME}", str(home))
    return Path(os.path.expandvars(named)).expanduser() if named else home / "plugins"


def release() -> None:
    """Unset what only the import needed: a task may start interpreters that must initialise Airflow in full (`run_as_user`)."""
    os.environ.pop("_AIRFLOW__AS_LIBRARY", None)
