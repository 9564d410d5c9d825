"""What of Airflow's Execution API a job may call, by its kind. Default deny for jobs that are no tasks.

A task's calls are bounded by the Execution API itself: the token minted for each call is for its own task instance.
"""

from __future__ import annotations

from urllib.parse import unquote

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import JobKind

from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger.leases import Subject

READS = frozenset({"GET", "HEAD"})
JUDGED_BY_AIRFLOW = frozenset({"run", "state"})
"""Of a task instance: Airflow itself refuses them when it is not queued, or not running, any more."""
READABLE_BY_CALLBACKS = frozenset({"connections", "variables"})


def check_call(subject: Subject, method: str, path: str) -> None:
    """*path*: percent-encoded, no leading slash.

    Raises:
        Refusal: `invalid`; this kind of job has no business there, or what the job writes about its try no longer counts.
    """
    parts = [unquote(part) for part in path.split("/")]
    if subject.kind is JobKind.TASK:
        if subject.taken_back and method not in READS and _is_about_the_try(parts):
            # XComs have no try in their key: what a cleared task wrote before it heard of that would be the next try's.
            raise Refusal(ProblemCode.INVALID, "central has taken this job back (its task was ended, cleared or deleted)")
        return
    if subject.kind is JobKind.CALLBACK and method == "GET" and parts[0] in READABLE_BY_CALLBACKS:
        return
    own = ["connection-tests", str(subject.id)]
    if subject.kind is JobKind.CONNECTION_TEST and (method, parts) in (("GET", [*own, "connection"]), ("PATCH", own)):
        return
    raise Refusal(ProblemCode.INVALID, f"a job of the kind {subject.kind.value} may not call {method} {path[:200]!r}")


def _is_about_the_try(parts: list[str]) -> bool:
    if parts[0] == "task-instances":
        return parts[-1] not in JUDGED_BY_AIRFLOW
    return parts[0] == "xcoms" or parts[:2] == ["store", "ti"]


def token_scope(kind: JobKind) -> str:
    """Return the scope of the token with which a job's calls are passed on; connection tests have routes of their own."""
    return "workload" if kind is JobKind.CONNECTION_TEST else "execution"
