"""What of the Execution API each kind of job may call."""

from __future__ import annotations

import uuid

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import JobKind
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.rights import check_call, token_scope
from airflow_remote_provider.ledger.leases import Subject

ME, OTHER = uuid.uuid4(), uuid.uuid4()


@pytest.mark.parametrize(
    ("kind", "method", "path"),
    [
        (JobKind.CALLBACK, "GET", "connections/vault"),
        (JobKind.CALLBACK, "GET", "variables/a%2Fb"),
        (JobKind.CONNECTION_TEST, "GET", f"connection-tests/{ME}/connection"),
        (JobKind.CONNECTION_TEST, "PATCH", f"connection-tests/{ME}"),
        (JobKind.TASK, "PATCH", f"task-instances/{ME}/run"),
    ],
)
def test_what_it_needs_it_may(kind: JobKind, method: str, path: str) -> None:
    check_call(Subject(kind, ME), method, path)


@pytest.mark.parametrize(
    ("kind", "method", "path"),
    [
        (JobKind.CALLBACK, "PUT", "variables/a"),
        (JobKind.CALLBACK, "GET", "xcoms/dag/run/task/key"),
        (JobKind.CALLBACK, "PATCH", f"task-instances/{ME}/run"),
        (JobKind.CALLBACK, "GET", f"connection-tests/{ME}/connection"),
        (JobKind.CONNECTION_TEST, "GET", "connections/vault"),
        (JobKind.CONNECTION_TEST, "GET", "variables/a"),
        (JobKind.CONNECTION_TEST, "GET", f"connection-tests/{OTHER}/connection"),
        (JobKind.CONNECTION_TEST, "PATCH", f"connection-tests/{OTHER}"),
        (JobKind.CONNECTION_TEST, "GET", f"connection-tests/{ME}%2Fconnection"),
        (JobKind.CONNECTION_TEST, "DELETE", f"connection-tests/{ME}"),
    ],
)
def test_anything_else_is_refused(kind: JobKind, method: str, path: str) -> None:
    with pytest.raises(Refusal, match=kind.value):
        check_call(Subject(kind, ME), method, path)


def test_only_a_connection_test_speaks_with_a_workloads_token() -> None:
    assert {kind: token_scope(kind) for kind in JobKind} == {
        JobKind.TASK: "execution",
        JobKind.CALLBACK: "execution",
        JobKind.CONNECTION_TEST: "workload",
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "xcoms/d/r/t/k"),
        ("DELETE", "xcoms/d/r/t/k"),
        ("PUT", f"store/ti/{ME}/k"),
        ("PUT", f"task-instances/{ME}/rtif"),
        ("PATCH", f"task-instances/{ME}/skip-downstream"),
    ],
)
def test_what_a_task_writes_about_its_try_counts_until_it_is_taken_back(method: str, path: str) -> None:
    check_call(Subject(JobKind.TASK, ME), method, path)
    with pytest.raises(Refusal) as refused:
        check_call(Subject(JobKind.TASK, ME, taken_back=True), method, path)
    assert refused.value.code is ProblemCode.INVALID


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "connections/vault"),
        ("GET", "xcoms/d/r/t/k"),
        ("PUT", "variables/a"),
        ("PATCH", f"task-instances/{ME}/state"),
        ("PATCH", f"task-instances/{ME}/run"),
    ],
)
def test_a_task_that_was_taken_back_may_still_wind_down(method: str, path: str) -> None:
    check_call(Subject(JobKind.TASK, ME, taken_back=True), method, path)
