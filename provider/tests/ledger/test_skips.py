"""Tasks that a job is allowed to skip."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from testkit.ledger import enlist, running  # isort: skip

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task, task_group
from airflow.serialization.serialized_objects import DagSerialization
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import Skip
from airflow_remote_provider.ledger.errors import NoSuchJob
from airflow_remote_provider.ledger.skips import NotDownstream, check_skip

pytestmark = pytest.mark.usefixtures("database")

VERSION = uuid.uuid4()


def _dag() -> Any:
    """`before` → `branch` → `direct` → `indirect` and `mapped`; `other`; a mapped group (`first` → `second`) → `after`."""
    with DAG("dag") as dag:
        before, branch, direct = (EmptyOperator(task_id=name) for name in ("before", "branch", "direct"))
        indirect, mapped = EmptyOperator(task_id="indirect"), EmptyOperator.partial(task_id="mapped").expand(doc=["a", "b"])
        before >> branch >> direct >> [indirect, mapped]
        EmptyOperator(task_id="other")

        @task
        def first(x: int) -> int:
            return x

        @task
        def second(x: int) -> int:
            return x

        @task_group
        def group(x: int) -> None:
            second(first(x))

        group.expand(x=[1, 2]) >> EmptyOperator(task_id="after")
    return DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))


@pytest.fixture(autouse=True)
def definition(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = _dag()
    monkeypatch.setattr(
        compat, "task_definition", lambda _session, version, task_id: dag.task_dict.get(task_id) if version == VERSION else None
    )


def _check(task_id: str, *tasks: tuple[str, int], map_index: int = -1, version: uuid.UUID = VERSION) -> None:
    workload = json.dumps({"ti": {"dag_version_id": str(version)}})
    worker = enlist("w" + uuid.uuid4().hex, ["q"])
    job_id = running(worker, "q", task_id=task_id, map_index=map_index, workload=workload).job_id
    with compat.transaction() as session:
        check_skip(session, job_id, Skip(frozenset(tasks)))


def test_all_downstream_tasks_can_be_skipped() -> None:
    _check("branch", ("direct", -1), ("indirect", -1), ("mapped", -1), ("mapped", 1))


@pytest.mark.parametrize("task_id", ["before", "branch", "other", "group.first", "nowhere", "", "direct "])
def test_other_tasks_cannot_be_skipped(task_id: str) -> None:
    with pytest.raises(NotDownstream, match="is not downstream of 'branch' in the Dag 'dag'"):
        _check("branch", ("direct", -1), (task_id, -1))


def test_an_instance_of_a_mapped_group_skips_tasks_of_its_own_map_index() -> None:
    _check("group.first", ("group.second", 1), ("after", -1), map_index=1)
    for map_index in (0, -1):
        with pytest.raises(NotDownstream, match="another instance of the mapped task group"):
            _check("group.first", ("group.second", map_index), map_index=1)


def test_without_the_dag_version_nothing_can_be_skipped() -> None:
    with pytest.raises(NotDownstream, match="no longer has the version"):
        _check("branch", ("direct", -1), version=uuid.uuid4())


def test_an_unknown_job_is_refused() -> None:
    with pytest.raises(NoSuchJob), compat.transaction() as session:
        check_skip(session, str(uuid.uuid4()), Skip(frozenset({("direct", -1)})))
