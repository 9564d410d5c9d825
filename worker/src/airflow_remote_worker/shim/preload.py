"""Imports and initialises Airflow before a process hosts a task: once in the zygote, or at the start of a shim without one.

Imports Airflow, its providers and the site's additions to the runtime (plugins, local settings), but never a Dag.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
import warnings
from contextlib import suppress
from types import ModuleType

from airflow_remote_worker.shim import denied_loads, environment, lossy

MODULES = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.secrets",
    "airflow.sdk.execution_time.context",
    "airflow.sdk.execution_time.xcom",
    "airflow.sdk.execution_time.lazy_sequence",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.definitions.decorators",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.bundles.manager",
    "airflow.dag_processing.bundles.local",
    "airflow_remote_worker.shim.coordinator",
    "airflow_remote_worker.shim.tasks",
    "airflow_remote_worker.shim.triggers.program",
    "airflow.triggers.base",
    "jinja2.ext",
    "setproctitle",
)

OF_SOME_VERSIONS = ("airflow.dag_processing.importers.python_importer", "airflow.sdk.importers.python_importer")
"""Airflow 3.3 has the first, Airflow 3.4 the second."""

OPERATOR_PACKAGES = (
    "airflow.providers.standard.operators",
    "airflow.providers.standard.sensors",
    "airflow.providers.standard.decorators",
    "airflow.providers.standard.triggers",
)
"""Used by nearly every Dag. A zygote shares their memory with all its tasks and trigger hosts."""


@functools.cache
def preload() -> None:
    """Import and initialise Airflow, once per process; a shim forked from a zygote has it already.

    Raises:
        ImportError: the runtime lacks a package that tasks need.
    """
    lossy.guard_stdio()
    environment.prepare()
    environment.prepare_path()
    # Airflow shows warnings with rich, which a lean runtime lacks: a warning would raise ModuleNotFoundError. Leaving this block
    # restores Python's own function.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in MODULES:
            importlib.import_module(name)
        for name in OF_SOME_VERSIONS:
            with suppress(ModuleNotFoundError):
                importlib.import_module(name)
    initialise()
    accept_any_executor()
    denied_loads.fail_denied_loads()
    environment.release()


def initialise() -> None:
    """Do what `airflow.settings.initialize()` does, without the database."""
    from airflow import settings
    from airflow.sdk.log import configure_logging

    settings.configure_vars()
    settings.prepare_syspath_for_config_and_plugins()
    settings.load_policy_plugins(settings.get_policy_plugin_manager())
    settings.import_local_settings()
    settings._configure_secrets_masker()
    # Without this call, nothing masks the supervisor's own log lines: a bare supervise_task() printed a password.
    configure_logging(json_output=True, output=sys.stdout.buffer)


def accept_any_executor() -> None:
    """Make Dags load whatever `executor=` their tasks name.

    The Dag bag compares each name with `[core] executor`. That list is central's, and central has checked the names. A machine
    that runs one task of the Dag does not need the executors of the others.
    """
    from airflow.dag_processing import dagbag

    if hasattr(dagbag, "_validate_executor_fields"):
        dagbag._validate_executor_fields = _accept


def _accept(dag: object, bundle_name: str | None = None) -> None:
    return None


def import_operators() -> None:
    """Import what most Dags use. Useful only in a process that forks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between Airflow and its providers, not of a Dag
        for package_name in OPERATOR_PACKAGES:
            with suppress(ImportError):  # the runtime needn't have the provider
                for name in _module_names(importlib.import_module(package_name)):
                    with suppress(ImportError):  # nor what one of its operators needs
                        importlib.import_module(name)


def _module_names(package: ModuleType) -> list[str]:
    return [module.name for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")]


def warm() -> None:
    """Fill caches that each task would otherwise fill by itself. Useful only in a process that forks."""
    from airflow.sdk.api.client import Client, getuser
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded
    from airflow.sdk.listener import get_listener_manager
    from airflow.sdk.log import load_remote_log_handler, logging_processors

    Client(base_url="http://central.invalid/", token="").close()  # its SSL context
    getuser()
    ensure_secrets_backend_loaded()
    load_remote_log_handler()
    logging_processors(json_output=True)
    get_listener_manager()  # loads the plugins
