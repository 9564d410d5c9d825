from __future__ import annotations

import pytest
from airflow_remote_worker.shim.writes import success_of

TI = "task-instances/01999999-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "xcoms/d/r/t/k", 201),
        ("POST", "xcoms/d/r/t/a/key/with/slashes?map_index=3&mapped_length=7", 201),
        ("DELETE", "xcoms/d/r/t/k", 200),
        ("PUT", f"{TI}/rtif", 201),
        ("PATCH", f"{TI}/rendered-map-index", 204),
        ("PATCH", f"{TI}/skip-downstream", 204),
        ("PATCH", f"{TI}/state", 204),
        ("PUT", "store/ti/x/a%2Fkey", 204),
        ("DELETE", "store/ti/x/key", 204),
        ("DELETE", "store/ti/x", 204),
    ],
)
def test_writes_of_a_task_about_itself_may_wait(method: str, path: str, status: int) -> None:
    assert success_of(method, path) == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", f"{TI}/run"),
        ("POST", "accept"),
        ("GET", "xcoms/d/r/t/k"),
        ("HEAD", "xcoms/d/r/t/k"),
        ("GET", f"{TI}/validate-inlets-and-outlets"),
        ("PUT", "variables/x"),
        ("DELETE", "variables/x"),
        ("PUT", "store/asset/by-name/value"),
        ("DELETE", "store/asset/by-uri/clear"),
        ("POST", "dag-runs/d/r"),
        ("POST", "dag-runs/d/r/clear"),
        ("POST", "hitlDetails/x"),
        ("PATCH", "hitlDetails/x"),
        ("PATCH", "connection-tests/x"),
        ("POST", "something/that/a/later/Airflow/has"),
    ],
)
def test_reads_and_writes_that_concern_others_wait_for_central(method: str, path: str) -> None:
    assert success_of(method, path) is None
