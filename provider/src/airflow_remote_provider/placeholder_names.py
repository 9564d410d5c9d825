"""Values that central writes into Airflow's own tables for a deferred remote task, not the worker's. Imports no Airflow."""

from __future__ import annotations

from typing import Any

PLACEHOLDER = "airflow_remote_provider.placeholder.RunsAtSite"
"""The class path in the row of a trigger that a worker hosts. It never fires."""
ON_CENTRAL = "airflow_remote_provider.placeholder.RunsOnCentral"
"""The class path in the row of a trigger that central's triggerer runs, because an administrator has listed its class."""
OURS = "airflow_remote_provider."
"""Administrators can't list classes with this prefix."""
TRIGGER_QUEUE = "airflow-remote-sites"
"""The trigger queue of the triggers that workers host. A triggerer ignores it unless it was started with that name."""
FAIL = "__fail__"
"""Airflow's `next_method` for a task that is resumed only to fail, with the reason in `next_kwargs["error"]`."""
RESUMED_ELSEWHERE: dict[str, Any] = {
    "error": "This task was deferred on a Remote Worker, and something else than the Remote Executor has resumed it. "
    "What it was to go on with is known to the Remote Executor alone. Clear the task to start it from the beginning."
}
"""`next_kwargs` in Airflow's table. The gateway replaces them when the task's next job starts. It recognises them by this
text, also those that an earlier release stored: don't change it."""
