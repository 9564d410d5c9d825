"""Fails a task at once if its Dag file can't be loaded because central denies something that the file reads at its top level.

The Task SDK assumes that a file that doesn't load has not arrived yet, and reschedules the task three times, a minute apart. That
does not help against a denial, and the task's log already has the remedy.
"""

from __future__ import annotations

import sys
from typing import Any

DENIED = ("AirflowSecretsBackendAccessDenied", "by Execution API; refusing to fall back")
"""Texts that mark a denial in an import error: the class in a traceback, or the message alone."""
REASON = (
    "The Dag file could not be loaded, because it reads something at its top level that is not granted to this job (see above). "
    "Every remote task of this file needs that grant: give it to each of them in its executor_config, or to the queue. "
    "The task is not rescheduled, because the answer would be the same."
)

_last_errors: list[str] = []
"""Import errors of the last file that this process loaded."""


def fail_denied_loads() -> None:
    """Patch the Task SDK in this process. Does nothing if a later Task SDK works differently: it reschedules then."""
    from airflow.dag_processing import dagbag
    from airflow.sdk.execution_time import task_runner

    if not hasattr(task_runner, "_maybe_reschedule_startup_failure"):
        print("denied_loads: this Task SDK reschedules in another way; tasks of denied files are rescheduled", file=sys.stderr)
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
            return  # the caller fails the task
        reschedule(log=log, **options)

    dagbag.BundleDagBag = BundleDagBag  # type: ignore[misc,unused-ignore]
    task_runner._maybe_reschedule_startup_failure = reschedule_unless_denied
