"""Decides whether a worker's runtime can host the tasks of this central. Only this module compares versions."""

from __future__ import annotations

import re

Minor = tuple[int, int]
"""Major and minor version."""

SUPPORTED_TASK_SDKS: dict[Minor, frozenset[Minor]] = {
    (3, 3): frozenset({(1, 3), (1, 4)}),
    (3, 4): frozenset({(1, 3), (1, 4)}),
}
"""By version of central's Airflow: the versions of the Task SDK that it serves. Each pair was tested."""


SITE_REMEDY = "install that into the runtime (runtime.python in the worker's settings)"


def explain_mismatch(central: str, *, task_sdk: str, airflow: str = "", remedy: str = SITE_REMEDY) -> str:
    """Return why a runtime with this *task_sdk* (and *airflow*) can't host the tasks of *central*; empty if it can.

    *central* is central's version of Airflow. A version that a worker did not report is accepted. *remedy* is what
    users should do.
    """
    if not task_sdk:
        return ""
    ours, theirs = _minor(central), _minor(task_sdk)
    # For an Airflow that is not in the table yet: Airflow 3.N comes with the Task SDK 1.N.
    fits = SUPPORTED_TASK_SDKS.get(ours, frozenset({(ours[0] - 2, ours[1])})) if ours else frozenset()
    if theirs in fits:
        return ""
    wanted = " or ".join(f"{major}.{minor}" for major, minor in sorted(fits))
    beside = f" (Airflow {airflow})" if airflow else ""
    return (
        f"its runtime has the Task SDK {task_sdk}{beside}, and this central is Airflow {central}, whose tasks need the Task SDK "
        f"{wanted}; {remedy}"
    )


def _minor(version: str) -> Minor | None:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", version)
    return (int(found[1]), int(found[2])) if found else None
