"""Which of central's Airflow settings tasks at a site get, what a value may look like, and why each is on the list.

A setting is on the list if a task that moves from the LocalExecutor to a worker would behave, or be masked, differently without
it. No secret is on it, no path on central's disk, no address inside central's network, and nothing that names code to import
or an operating system user: those are the site's own. How both sides' values are combined: the worker's `shim/task_settings`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

LONGEST_LIST = 6 * 1024
"""Characters of the names to mask. All values together fit into one environment variable (128 KiB), whatever their characters."""
LONGEST_VALUE = 1000
"""Characters of any other value."""

WHOLE = re.compile(r"-?[0-9]{1,12}")
WHOLE_OR_NONE = re.compile(r"([0-9]{1,12})?")
NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
SWITCH = re.compile(r"true|t|yes|y|on|1|false|f|no|n|off|0", re.IGNORECASE)
ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_/-]{0,63}")
LEVEL = re.compile(r"[A-Za-z]{1,20}")
TEXT = re.compile(r"(?![~])[^\x00-\x1f\x7f$]*")
"""Without `$` and a leading `~`: Airflow replaces both in values that it reads from the environment."""


@dataclass(frozen=True)
class Option:
    """One option on the list. *shape* is what its whole value must match."""

    shape: re.Pattern[str]
    why: str
    is_address: bool = False
    longest: int = LONGEST_VALUE

    def takes(self, value: str) -> bool:
        """Say whether *value* may be a value of this option."""
        if len(value) > self.longest or self.shape.fullmatch(value) is None:
            return False
        return not self.is_address or _is_plain_address(value)


OPTIONS: dict[str, Option] = {
    # Masking
    "core.sensitive_var_conn_names": Option(
        TEXT, "Variables and fields of connections whose values are masked in logs.", longest=LONGEST_LIST
    ),
    "core.hide_sensitive_var_conn_fields": Option(SWITCH, "Whether they are masked at all."),
    "logging.min_length_masked_secret": Option(WHOLE, "How short a secret may be and is still masked."),
    # Defaults that operators take when a Dag file is loaded
    "core.default_task_execution_timeout": Option(WHOLE_OR_NONE, "When a task without a timeout of its own is ended."),
    "core.default_task_retries": Option(WHOLE, "What a task, its callbacks and its mail see as `task.retries`."),
    "core.default_task_retry_delay": Option(WHOLE, "The same for `task.retry_delay`."),
    "core.max_task_retry_delay": Option(WHOLE, "The same for `task.max_retry_delay`."),
    "operators.default_deferrable": Option(SWITCH, "Whether operators and sensors defer unless the Dag says otherwise."),
    "operators.default_owner": Option(TEXT, "What a task sees as `task.owner`."),
    "operators.default_queue": Option(TEXT, "What a task sees as `task.queue`."),
    "sensors.default_timeout": Option(NUMBER, "When a sensor without a timeout of its own gives up."),
    "email.default_email_on_failure": Option(SWITCH, "Whether a task with `email` sends mail when it fails."),
    "email.default_email_on_retry": Option(SWITCH, "Whether it does when it is retried."),
    "scheduler.create_cron_data_intervals": Option(SWITCH, "The timetable that a cron expression gets."),
    # What a task reads while it runs
    "core.default_timezone": Option(ZONE, "The time zone of times that name none."),
    "api.base_url": Option(TEXT, "Where links such as `ti.log_url`, also those in mail, lead.", is_address=True),
    "core.dag_run_conf_overrides_params": Option(SWITCH, "Whether `params` have the values of the run's `conf`."),
    "core.max_templated_field_length": Option(WHOLE, "How much of a rendered field is shown."),
    "core.dagbag_import_timeout": Option(NUMBER, "How long a Dag file may take to load."),
    "core.task_success_overtime": Option(NUMBER, "How long a task's listeners may run after its success."),
    "email.from_email": Option(TEXT, "The sender of a failed task's mail."),
    "logging.logging_level": Option(LEVEL, "What a task's log holds."),
    "logging.namespace_levels": Option(TEXT, "The same, logger by logger."),
    "state_store.default_retention_days": Option(WHOLE, "How long what a task stores is kept."),
    "state_store.clear_on_success": Option(SWITCH, "Whether a task that succeeds clears it."),
    "state_store.max_value_storage_bytes": Option(WHOLE, "How large a stored value may be."),
    # Callbacks and triggers
    "callbacks.callback_execution_timeout": Option(WHOLE, "When a callback of a Dag run is ended."),
    "triggerer.on_kill_timeout": Option(NUMBER, "How long a trigger's `on_kill` may take."),
    "triggerer.blocked_main_thread_warning_threshold": Option(
        NUMBER, "How long a trigger may block the others before its log says so, in seconds."
    ),
}
"""By `section.option`."""


def usable(values: Mapping[str, str]) -> dict[str, str]:
    """Return those of *values* that are on the list and may have the value that they have."""
    return {name: value for name, value in values.items() if name in OPTIONS and OPTIONS[name].takes(value)}


def revision_of(values: Mapping[str, str]) -> str:
    """Return what differs whenever *values* do."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:16]


def _is_plain_address(value: str) -> bool:
    """Say whether *value* is a web address without a user and a password."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
