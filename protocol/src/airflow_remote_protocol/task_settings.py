"""The central Airflow settings that are sent to workers for their tasks, with the allowed values and the reason of each.

A setting is on the list if a task that moves from the LocalExecutor to a worker would otherwise behave differently, or its log
would be masked differently. The list contains no secret, no path on central's disk, no address inside central's network, and
nothing that names code to import or an operating system user: the site configures those. The worker's `shim/task_settings`
combines the values of both sides.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_LIST_LENGTH = 6 * 1024
"""Characters of the list of names to mask. All values together fit into one environment variable (128 KiB), whatever their
characters."""
MAX_VALUE_LENGTH = 1000
"""Characters of any other value."""

WHOLE = re.compile(r"-?[0-9]{1,12}")
WHOLE_OR_NONE = re.compile(r"([0-9]{1,12})?")
NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
SWITCH = re.compile(r"true|t|yes|y|on|1|false|f|no|n|off|0", re.IGNORECASE)
ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_/-]{0,63}")
LEVEL = re.compile(r"[A-Za-z]{1,20}")
TEXT = re.compile(r"(?![~])[^\x00-\x1f\x7f$]*")
"""Excludes `$` and a leading `~`, because Airflow replaces both in values that it reads from the environment."""


@dataclass(frozen=True)
class Option:
    """One option on the list. *shape* must match its whole value."""

    shape: re.Pattern[str]
    why: str
    is_address: bool = False
    longest: int = MAX_VALUE_LENGTH

    def accepts(self, value: str) -> bool:
        """Return whether *value* is allowed for this option."""
        if len(value) > self.longest or self.shape.fullmatch(value) is None:
            return False
        return not self.is_address or _is_plain_address(value)


OPTIONS: dict[str, Option] = {
    # Masking
    "core.sensitive_var_conn_names": Option(
        TEXT, "Names of variables and of connection fields whose values are masked in logs.", longest=MAX_LIST_LENGTH
    ),
    "core.hide_sensitive_var_conn_fields": Option(SWITCH, "Whether they are masked."),
    "logging.min_length_masked_secret": Option(WHOLE, "The shortest secret that is masked."),
    # Defaults of operators when a Dag file is loaded
    "core.default_task_execution_timeout": Option(WHOLE_OR_NONE, "Timeout of a task without one of its own."),
    "core.default_task_retries": Option(WHOLE, "The value of `task.retries` in a task, its callbacks and its mail."),
    "core.default_task_retry_delay": Option(WHOLE, "The same for `task.retry_delay`."),
    "core.max_task_retry_delay": Option(WHOLE, "The same for `task.max_retry_delay`."),
    "operators.default_deferrable": Option(SWITCH, "Whether operators and sensors defer unless the Dag says otherwise."),
    "operators.default_owner": Option(TEXT, "The value of `task.owner` in a task."),
    "operators.default_queue": Option(TEXT, "The value of `task.queue` in a task."),
    "sensors.default_timeout": Option(NUMBER, "Timeout of a sensor without one of its own."),
    "email.default_email_on_failure": Option(SWITCH, "Whether a task with `email` sends mail when it fails."),
    "email.default_email_on_retry": Option(SWITCH, "Whether a task with `email` sends mail when it is retried."),
    "scheduler.create_cron_data_intervals": Option(SWITCH, "The timetable for a cron expression."),
    # What a task reads while it runs
    "core.default_timezone": Option(ZONE, "The time zone of times without a time zone."),
    "api.base_url": Option(TEXT, "The address in links such as `ti.log_url`, also in mail.", is_address=True),
    "core.dag_run_conf_overrides_params": Option(SWITCH, "Whether the run's `conf` overrides `params`."),
    "core.max_templated_field_length": Option(WHOLE, "How many characters of a rendered field are shown."),
    "core.dagbag_import_timeout": Option(NUMBER, "How long a Dag file may take to load."),
    "core.task_success_overtime": Option(NUMBER, "How long a task's listeners may run after its success."),
    "email.from_email": Option(TEXT, "The sender of a failed task's mail."),
    "logging.logging_level": Option(LEVEL, "The log level of a task's log."),
    "logging.namespace_levels": Option(TEXT, "The same for single loggers."),
    "state_store.default_retention_days": Option(WHOLE, "How long values that a task stores are kept."),
    "state_store.clear_on_success": Option(SWITCH, "Whether a task's success deletes them."),
    "state_store.max_value_storage_bytes": Option(WHOLE, "How large a stored value may be."),
    # Callbacks and triggers
    "callbacks.callback_execution_timeout": Option(WHOLE, "Timeout of a callback of a Dag run."),
    "triggerer.on_kill_timeout": Option(NUMBER, "How long a trigger's `on_kill` may take."),
    "triggerer.blocked_main_thread_warning_threshold": Option(
        NUMBER, "How long a trigger may block the others before a warning is logged, in seconds."
    ),
}
"""By `section.option`."""


def filter_usable(values: Mapping[str, str]) -> dict[str, str]:
    """Return the items of *values* that are on the list and have an allowed value."""
    return {name: value for name, value in values.items() if name in OPTIONS and OPTIONS[name].accepts(value)}


def compute_revision(values: Mapping[str, str]) -> str:
    """Return a short hash of *values*."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:16]


def _is_plain_address(value: str) -> bool:
    """Return whether *value* is a web address without a user and a password."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
