"""What Airflow's own tables hold for a wait of ours instead of what a worker sent. Imports nothing of Airflow's."""

from __future__ import annotations

from typing import Any

PLACEHOLDER = "airflow_remote_provider.placeholder.RunsAtSite"
"""The class path of every such trigger: it never fires."""
ON_CENTRAL = "airflow_remote_provider.placeholder.RunsOnCentral"
"""The class path in the row of a trigger that central's triggerer runs because an administrator has listed its class."""
OURS = "airflow_remote_provider."
"""Where no class that an administrator may list is."""
TRIGGER_QUEUE = "airflow-remote-sites"
"""The trigger queue of every such trigger. A triggerer leaves it alone unless it was started with that name."""
FAIL = "__fail__"
"""Airflow's `next_method` for a task that is resumed only to fail, with `next_kwargs["error"]` as its reason."""
RESUMED_ELSEWHERE: dict[str, Any] = {
    "error": "This task was deferred on a Remote Worker, and something else than the Remote Executor has resumed it. "
    "What it was to go on with is known to the Remote Executor alone. Clear the task to start it from the beginning."
}
"""`next_kwargs` in Airflow's table. The gateway replaces them when the task's next job starts."""
