"""The grant of a job, and the records of its requests."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from testkit.ledger import ago, audit_entries, enlist, offered, running  # isort: skip

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow_remote_protocol.messages import JobKind
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import DECLARED, Ask, GrantKind
from airflow_remote_provider.definitions.grants.declared import NOTED, OF_FILE
from airflow_remote_provider.ledger import audit, grants, queue_policy
from airflow_remote_provider.ledger.errors import NoSuchJob
from airflow_remote_provider.ledger.grants import Answer, Verdict
from airflow_remote_provider.ledger.queue_policy import Mode
from airflow_remote_provider.ledger.views.accesses import AccessFilter, list_accesses
from airflow_remote_provider.ledger.views.page import Page
from airflow_remote_provider.models import Access, Job
from sqlalchemy import delete, select, update

pytestmark = pytest.mark.usefixtures("database")

VERSION = uuid.uuid4()
PLANT = Ask(GrantKind.CONNECTIONS, ("plant",))


@pytest.fixture(autouse=True)
def definition(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the keyword arguments of the task, which tests change."""
    arguments: dict[str, Any] = {"bash_command": "true"}

    def tasks() -> dict[str, Any]:
        with DAG("dag") as dag:
            BashOperator(task_id="task", **arguments)
        read_back: Any = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        return dict(read_back.task_dict)

    def one(_session: object, version: uuid.UUID, task_id: str) -> Any:
        return tasks().get(task_id) if version == VERSION and "gone" not in arguments else None

    monkeypatch.setattr(compat, "task_definition", one)
    monkeypatch.setattr(compat, "newest_definitions", lambda _session, dag_id: tasks() if dag_id == "dag" else {})
    return arguments


def _job(queue: str = "q", **changes: Any) -> str:
    workload = json.dumps({"ti": {"dag_version_id": str(VERSION)}})
    return running(enlist("w" + uuid.uuid4().hex, [queue]), queue, **{"workload": workload, **changes}).job_id


def _decide(job_id: str, ask: Ask = PLANT) -> Verdict:
    with compat.transaction() as session:
        return grants.decide(session, job_id, ask)


def _rows() -> list[Access]:
    with compat.transaction() as session:
        return list(session.scalars(select(Access).order_by(Access.kind, Access.name, Access.answer)))


def _allow(queue: str = "q", **globs: list[str]) -> None:
    with compat.transaction() as session:
        queue_policy.allow(session, queue, {GrantKind(kind): some for kind, some in globs.items()}, by="ada")


def _mode(mode: Mode) -> None:
    with compat.transaction() as session:
        queue_policy.set_mode(session, "q", mode, by="ada")


def test_a_denial_says_how_to_allow_the_name() -> None:
    verdict = _decide(_job())
    assert verdict.answer is Answer.DENIED
    assert verdict.why == (
        "Not granted to this job: connection 'plant'; its task's fields and templates do not name it, its executor_config does "
        "not declare it, and the policy of the queue 'q' does not allow it. To allow it, give the task "
        'executor_config={"remote": {"connections": ["plant"]}}, or run on central: '
        "airflow remote grants allow q --connections plant"
    )


def test_a_name_in_a_template_is_granted(definition: dict[str, Any]) -> None:
    definition["bash_command"] = "echo {{ conn.plant.host }} {{ var.value.v }}"
    job = _job()
    assert _decide(job).answer is Answer.GRANTED
    assert _decide(job, Ask(GrantKind.VARIABLES, ("v",))).answer is Answer.GRANTED
    assert _decide(job, Ask(GrantKind.WRITES, ("v",))).answer is Answer.DENIED
    assert _decide(job, Ask(GrantKind.CONNECTIONS, ("v",))).answer is Answer.DENIED


def test_a_name_noted_when_the_file_was_parsed_is_granted(definition: dict[str, Any]) -> None:
    definition["executor_config"] = {"remote_inferred": {"connections": ["plant"]}}
    assert _decide(_job()).answer is Answer.GRANTED


def test_a_declared_name_is_granted(definition: dict[str, Any]) -> None:
    definition["executor_config"] = {"remote": {"connections": ["pl*"], "writes": ["w"], "xcoms_of": ["other"]}}
    job = _job()
    assert _decide(job).answer is Answer.GRANTED
    assert _decide(job, Ask(GrantKind.WRITES, ("w",))).answer is Answer.GRANTED
    assert _decide(job, Ask(GrantKind.XCOMS_OF, ("other",))).answer is Answer.GRANTED
    assert _decide(job, Ask(GrantKind.DAGS, ("other",))).answer is Answer.DENIED


def test_a_name_in_the_policy_of_the_queue_is_granted(definition: dict[str, Any]) -> None:
    job = _job()
    assert _decide(job).answer is Answer.DENIED
    _allow(connections=["plant"])
    assert _decide(job).answer is Answer.GRANTED
    definition["gone"] = True
    assert _decide(job).answer is Answer.GRANTED


def test_a_denial_names_an_invalid_declaration(definition: dict[str, Any]) -> None:
    definition["executor_config"] = {"remote": {"connections": "plant"}}
    assert 'executor_config["remote"]["connections"] is a str' in _decide(_job()).why


def test_a_missing_dag_version_grants_nothing_and_is_named_in_the_denial(definition: dict[str, Any]) -> None:
    definition["gone"] = True
    assert "central no longer has that version of the Dag" in _decide(_job()).why
    assert "central no longer has that version of the Dag" in _decide(_job(workload='{"ti": {}}')).why


def test_names_with_special_characters_are_quoted_for_the_shell() -> None:
    why = _decide(_job("q 1"), Ask(GrantKind.XCOMS_OF, ("it's",))).why
    assert """airflow remote grants allow 'q 1' --xcoms-of 'it'"'"'s'""" in why


def test_the_run_whose_asset_event_triggered_the_job_s_run_needs_no_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[str, str], tuple[str, str]]] = []

    def is_triggered_by(_session: object, run: tuple[str, str], source: tuple[str, str]) -> bool:
        asked.append((run, source))
        return source == ("raw", "r-7")

    monkeypatch.setattr(compat, "is_triggered_by", is_triggered_by)
    job = _job(run_id="mine")
    assert _decide(job, Ask(GrantKind.DAGS, ("raw",), run="r-7")).answer is Answer.GRANTED
    assert _decide(job, Ask(GrantKind.DAGS, ("raw",), run="r-8")).answer is Answer.DENIED
    assert _decide(job, Ask(GrantKind.DAGS, ("raw",))).answer is Answer.DENIED
    assert asked == [(("dag", "mine"), ("raw", "r-7")), (("dag", "mine"), ("raw", "r-8"))]


def test_a_callback_is_granted_what_its_dag_file_reads_when_loaded(definition: dict[str, Any]) -> None:
    definition["executor_config"] = {NOTED: {"variables": ["of_the_task"], OF_FILE: {"variables": ["limit"]}}}
    worker = enlist("callbacks", capabilities=["task", "callback"])
    job = offered(
        worker, kind=JobKind.CALLBACK, ti_id=None, dag_id="dag", task_id="", workload='{"kwargs": {}}', with_task=False
    ).job_id
    assert _decide(job, Ask(GrantKind.VARIABLES, ("limit",))).answer is Answer.GRANTED
    assert _decide(job, Ask(GrantKind.VARIABLES, ("of_the_task",))).answer is Answer.DENIED


def test_a_callback_is_granted_the_names_in_its_arguments() -> None:
    workload = json.dumps({"kwargs": {"slack_conn_id": "plant", "text": "{{ var.value.v }}"}})
    worker = enlist("callbacks", capabilities=["task", "callback"])
    job = offered(worker, kind=JobKind.CALLBACK, ti_id=None, task_id="", workload=workload, with_task=False).job_id
    assert _decide(job).answer is Answer.GRANTED
    denied = _decide(job, Ask(GrantKind.CONNECTIONS, ("other",)))
    assert denied.answer is Answer.DENIED
    assert "executor_config" not in denied.why and "airflow remote grants allow q --connections other" in denied.why


def test_in_audit_mode_a_request_is_allowed_and_recorded() -> None:
    _mode(Mode.AUDIT)
    assert _decide(_job()).answer is Answer.AUDITED
    (row,) = _rows()
    assert (row.kind, row.name, row.answer, row.dag_id, row.task_id) == ("connections", "plant", "audited", "dag", "task")


def test_only_reads_of_secrets_are_recorded_when_granted_once_per_job(definition: dict[str, Any]) -> None:
    definition["executor_config"] = {"remote": {kind.value: ["*"] for kind in DECLARED}}
    first, second = _job(), _job()
    for job in (first, first, first, second):
        for kind in DECLARED:
            assert _decide(job, Ask(kind, ("n",))).answer is Answer.GRANTED
    rows = _rows()
    assert sorted((row.job_id, row.kind, row.answer) for row in rows) == sorted(
        (job, kind, "granted") for job in (first, second) for kind in ("connections", "variables")
    )


def test_a_record_holds_the_job_the_name_and_the_time() -> None:
    job = _job(run_id="r", map_index=4, try_number=2)
    _decide(job)
    (row,) = _rows()
    assert (row.job_id, row.queue, row.run_id, row.map_index, row.try_number) == (job, "q", "r", 4, 2)
    assert row.worker_name is not None and row.worker_name.startswith("w") and row.at > ago(minutes=1)


def test_the_number_of_records_of_a_job_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "MOST_NAMES", 3)
    job = _job()
    for number in range(6):
        assert _decide(job, Ask(GrantKind.VARIABLES, (f"v{number}",))).answer is Answer.DENIED
    assert [(row.kind, row.name) for row in _rows()] == [
        ("call", "(more)"),
        ("variables", "v0"),
        ("variables", "v1"),
        ("variables", "v2"),
    ]


def test_a_long_name_is_cut() -> None:
    _decide(_job(), Ask(GrantKind.VARIABLES, ("x" * 4000,)))
    assert [len(row.name) for row in _rows()] == [250]


def test_control_characters_in_a_name_are_replaced() -> None:
    denied = _decide(_job(), Ask(GrantKind.ASSETS, ("a\x00b\ud800\n",)))
    assert denied.answer is Answer.DENIED and denied.why.isprintable()
    assert [row.name for row in _rows()] == ["a�b� "]


def test_an_unknown_job_is_refused() -> None:
    with pytest.raises(NoSuchJob):
        _decide(str(uuid.uuid4()))


def test_records_are_kept_as_long_as_the_audit_and_outlive_their_job() -> None:
    _decide(_job())
    with compat.transaction() as session:
        session.execute(delete(Job))
        assert audit.purge(session, older_than=timedelta(days=14)) == 0
        session.execute(update(Access).values(at=ago(days=15)))
        assert audit.purge(session, older_than=timedelta(days=14)) == 1
    assert _rows() == []


def test_the_audit_includes_requests_of_jobs() -> None:
    _allow(variables=["v"])
    job = _job()
    _decide(job)
    _decide(job, Ask(GrantKind.VARIABLES, ("v",)))
    _mode(Mode.AUDIT)
    _decide(job, Ask(GrantKind.VARIABLES, ("w",)))
    rows = audit_entries()
    assert [row.kind for row in rows[:4]] == ["would-deny", "action", "secret-read", "denied"]
    assert rows[3].detail == "connections 'plant' for dag.task (try 1, run run)"
    assert [row.kind for row in audit_entries("denied")] == ["denied"]
    assert {row.kind for row in audit_entries("action", "denied")} == {"action", "denied"}
    assert len(audit_entries(job_id=job)) == 3
    assert audit_entries(worker="another") == []


def test_accesses_are_listed_newest_first_and_filtered() -> None:
    _allow(variables=["v"])
    job = _job()
    _decide(job)
    _decide(job, Ask(GrantKind.VARIABLES, ("v",)))
    _decide(_job(dag_id="other"), Ask(GrantKind.VARIABLES, ("w",)))
    with compat.transaction() as session:
        assert {row.name for row in list_accesses(session).rows} == {"plant", "v", "w"}
        assert [row.name for row in list_accesses(session, page=Page(1)).rows] == ["w"]
        assert {row.name for row in list_accesses(session, only=AccessFilter(dag_id="dag")).rows} == {"plant", "v"}
        denied = AccessFilter(answers=[Answer.DENIED.value])
        assert {row.name for row in list_accesses(session, only=denied).rows} == {"plant", "w"}


# What an author should declare


def _suggest(dag_id: str = "dag") -> dict[str, dict[GrantKind, list[str]]]:
    with compat.transaction() as session:
        return grants.suggest(session, dag_id)


def test_denied_names_are_suggested_together_with_declared_ones(definition: dict[str, Any]) -> None:
    definition["executor_config"] = {"remote": {"connections": ["b"], "dags": ["d"]}}
    job = _job()
    _decide(job)
    _decide(job, Ask(GrantKind.VARIABLES, ("site_",), listing=True))
    _mode(Mode.AUDIT)
    _decide(job, Ask(GrantKind.VARIABLES, ("v",)))
    _decide(job, Ask(GrantKind.CONNECTIONS, ("b",)))
    assert _suggest() == {
        "task": {GrantKind.CONNECTIONS: ["b", "plant"], GrantKind.VARIABLES: ["site_*", "v"], GrantKind.DAGS: ["d"]}
    }
    assert _suggest("other") == {}


def test_names_granted_since_are_not_suggested(definition: dict[str, Any]) -> None:
    job = _job()
    _decide(job)
    _decide(job, Ask(GrantKind.VARIABLES, ("v",)))
    _decide(job, Ask(GrantKind.VARIABLES, ("site_",), listing=True))
    definition["bash_command"] = "{{ conn.plant.host }}"
    definition["executor_config"] = {"remote": {"variables": ["site_*"]}}
    _allow(variables=["v"])
    assert _suggest() == {}


def test_calls_that_no_grant_allows_are_recorded_but_not_suggested() -> None:
    job = _job()
    with compat.transaction() as session:
        grants.deny_call(session, job, "GET new/route")
        grants.deny_call(session, str(uuid.uuid4()), "GET new/route")
    assert [(row.kind, row.name, row.answer) for row in _rows()] == [("call", "GET new/route", "denied")]
    assert _suggest() == {}
