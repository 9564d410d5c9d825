"""The behaviour that every central must show: one function per sentence of docs/protocol.md, and a small worker for the requests.

Owns which answers are correct. The caller supplies a :class:`.central.CentralUnderTest`, so the fake central and the real app
pass the same checks::

    @pytest.mark.parametrize("check", conformance.ALL, ids=conformance.sentence)
    def test_central_conforms(check, central):
        check(central)

Each check enrols its own workers on its own queues, so all checks can share one central. :mod:`.caller` is the worker that sends
the requests, :mod:`.expect` has the assertions about answers; each other module contains the checks of one theme. This is the
only part of the package that waits and reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable

from airflow_remote_protocol.conformance import (
    code,
    credentials,
    enrolment,
    every_request,
    execution,
    intents,
    job_limits,
    leases,
    leaving,
    logs,
    polls,
    releases,
    repeats,
    runtimes,
    sessions,
    stops,
    task_settings,
    triggers,
    usages,
    worker_logs,
)
from airflow_remote_protocol.conformance.central import CentralUnderTest

Check = Callable[[CentralUnderTest], None]

THEMES = (
    every_request,
    enrolment,
    sessions,
    polls,
    job_limits,
    task_settings,
    leases,
    logs,
    worker_logs,
    runtimes,
    releases,
    usages,
    code,
    stops,
    intents,
    execution,
    triggers,
    repeats,
    credentials,
    leaving,
)

ALL: list[Check] = [check for theme in THEMES for name, check in vars(theme).items() if name.startswith("check_")]
"""Every check, in the order of docs/protocol.md."""


def sentence(check: Check) -> str:
    """Return the name of *check* as a sentence."""
    return check.__name__.removeprefix("check_").replace("_", " ")
