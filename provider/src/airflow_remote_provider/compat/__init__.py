"""The only package that uses Airflow's private or version-dependent names (Airflow 3.3 and 3.4).

It has one module per subject; callers import this package. Airflow is imported inside the functions, so that importing this
package reads no configuration.
"""

from __future__ import annotations

from airflow.utils.sqlalchemy import UtcDateTime

from airflow_remote_provider.compat.auth import (
    NoSuchUser,
    base_url,
    may_end_tasks,
    may_manage_workers,
    may_see_workers,
    readable_dags,
    readable_teams,
    user_of,
    user_of_request,
)
from airflow_remote_provider.compat.bundles import (
    BundleSource,
    BundleUnavailable,
    Checkout,
    KnownBundle,
    VersionGone,
    bundle_sources,
    dag_source_hash,
    known_bundles,
    parsed_dag_files,
    remove_old_versions,
)
from airflow_remote_provider.compat.clocks import (
    MYSQL_TIMESTAMPS,
    database_clock,
    database_now,
    date_range,
    latest_clock,
    read_clock_with,
)
from airflow_remote_provider.compat.database import (
    DEADLOCK_TRIES,
    connect,
    engine,
    in_transaction,
    transaction,
)
from airflow_remote_provider.compat.definitions import (
    are_mapped_together,
    dag_bag,
    downstream_of,
    newest_definitions,
    policy_violation,
    set_executor_config,
    source_of_dag_file,
    start_on_worker,
    task_definition,
)
from airflow_remote_provider.compat.execution_api import (
    airflow_version,
    execution_api_app,
    execution_token_generator,
    has_callback_start,
    refuses_token,
    state_for_this_airflow,
)
from airflow_remote_provider.compat.executor_names import executor_names, names_of_subclasses
from airflow_remote_provider.compat.metrics import emit, metric_part, metrics_are_on
from airflow_remote_provider.compat.models import (
    ENDED_CALLBACK,
    ENDED_CONNECTION_TEST,
    ParsedSource,
    callback_model,
    connection_test_model,
    dag_run_model,
    fail_connection_test,
    is_triggered_by,
    living_schedulers,
    parsed_sources,
    task_instance_model,
)
from airflow_remote_provider.compat.paths import base_log_folder, log_file, open_object_storage
from airflow_remote_provider.compat.waits import end_waiting, forget_unused_triggers, resume, trigger_model, waits_on

__all__ = [
    "DEADLOCK_TRIES",
    "ENDED_CALLBACK",
    "ENDED_CONNECTION_TEST",
    "MYSQL_TIMESTAMPS",
    "BundleSource",
    "BundleUnavailable",
    "Checkout",
    "KnownBundle",
    "NoSuchUser",
    "ParsedSource",
    "UtcDateTime",
    "VersionGone",
    "airflow_version",
    "are_mapped_together",
    "base_log_folder",
    "base_url",
    "bundle_sources",
    "callback_model",
    "connect",
    "connection_test_model",
    "dag_bag",
    "dag_run_model",
    "dag_source_hash",
    "database_clock",
    "database_now",
    "date_range",
    "downstream_of",
    "emit",
    "end_waiting",
    "engine",
    "execution_api_app",
    "execution_token_generator",
    "executor_names",
    "fail_connection_test",
    "forget_unused_triggers",
    "has_callback_start",
    "in_transaction",
    "is_triggered_by",
    "known_bundles",
    "latest_clock",
    "living_schedulers",
    "log_file",
    "may_end_tasks",
    "may_manage_workers",
    "may_see_workers",
    "metric_part",
    "metrics_are_on",
    "names_of_subclasses",
    "newest_definitions",
    "open_object_storage",
    "parsed_dag_files",
    "parsed_sources",
    "policy_violation",
    "read_clock_with",
    "readable_dags",
    "readable_teams",
    "refuses_token",
    "remove_old_versions",
    "resume",
    "set_executor_config",
    "source_of_dag_file",
    "start_on_worker",
    "state_for_this_airflow",
    "task_definition",
    "task_instance_model",
    "transaction",
    "trigger_model",
    "user_of",
    "user_of_request",
    "waits_on",
]
