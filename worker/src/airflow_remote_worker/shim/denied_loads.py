"""Ends a task at once whose Dag file can't be loaded because central denies something that the file reads at its top level.

The Task SDK takes any file that doesn't load for one that has not arrived yet: it reschedules the task three times, a minute
apart. A denial is no such thing; the task's log says already what to declare.
"""

from __future__ import annotations

import sys
from typing import Any

DENIED = ("AirflowSecretsBackendAccessDenied", "by Execution API; refusing to fall back")
"""What the text of an import error has of a denial: the class in a traceback, or the message alone."""
REASON = (
    "The Dag file could not be loaded, because it reads something at its top level that is not granted to this job (see above). "
    "Every remote task of this file needs that grant: give it to each of them in its executor_config, or to the queue. "
    "The task is not rescheduled, because the answer would be the same."
)

_last_errors: list[str] = []
"""Import errors of the file that this process loaded last."""


def end_at_once() -> None:
    """Let the Task SDK in this process do so. Nothing happens if a later one works otherwise: then it reschedules."""
    from airflow.dag_processing import dagbag
    from airflow.sdk.execution_time import task_runner

    if not hasattr(task_runner, "_maybe_reschedule_startup_failure"):
        print("denied_loads: this Task SDK reschedules in another way; denied files are loaded again", file=sys.stderr)
        return
    reschedule = task_runner._maybe_reschedule_startup_failure

    class BundleDagBag(dagbag.BundleDagBag):  # type: ignore[misc,unused-ignore]
        """Remembers why the file could not be loaded."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            _last_errors[:] = map(str, self.import_errors.values())

    def reschedule_unless_denied(*, log: Any, **options: Any) -> None:
        if any(sign in error for error in _last_errors for sign in DENIED):
            log.error(REASON)
            return  # the caller ends the task as failed
        reschedule(log=log, **options)

    dagbag.BundleDagBag = BundleDagBag  # type: ignore[misc,unused-ignore]
    task_runner._maybe_reschedule_startup_failure = reschedule_unless_denied
