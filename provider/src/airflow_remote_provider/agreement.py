"""Whether a worker's runtime can host the tasks of this central: the one place that compares versions."""

from __future__ import annotations

import re

Minor = tuple[int, int]
"""Major and minor version."""

HOSTS: dict[Minor, frozenset[Minor]] = {
    (3, 3): frozenset({(1, 3), (1, 4)}),
    (3, 4): frozenset({(1, 3), (1, 4)}),
}
"""By central's Airflow: the Task SDKs whose tasks it serves. Each pair was seen working."""


def disagreement(central: str, task_sdk: str, airflow: str = "") -> str:
    """Return why a runtime with this *task_sdk* (and *airflow*) can't host the tasks of *central*; empty if it can.

    *central* is central's version of Airflow. A version that a worker did not report disagrees with nothing.
    """
    if not task_sdk:
        return ""
    ours, theirs = _minor(central), _minor(task_sdk)
    # Of an Airflow that we don't know yet: Airflow 3.N comes with the Task SDK 1.N.
    fits = HOSTS.get(ours, frozenset({(ours[0] - 2, ours[1])})) if ours else frozenset()
    if theirs in fits:
        return ""
    wanted = " or ".join(f"{major}.{minor}" for major, minor in sorted(fits))
    beside = f" (Airflow {airflow})" if airflow else ""
    return (
        f"its runtime has the Task SDK {task_sdk}{beside}, and this central is Airflow {central}, whose tasks need the Task SDK "
        f"{wanted}; install that into the runtime (runtime.python in the worker's settings)"
    )


def _minor(version: str) -> Minor | None:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", version)
    return (int(found[1]), int(found[2])) if found else None
