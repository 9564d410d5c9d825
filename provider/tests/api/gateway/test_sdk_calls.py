"""The rules accept the route, the parameters and the body of every call that the installed Task SDK's client can make."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow.sdk.api import client as sdk
from airflow.sdk.execution_time import comms
from airflow_remote_provider.api.gateway import rules

AT = datetime(2026, 11, 30, tzinfo=timezone.utc)
ME = uuid.UUID(int=1)
VALUES: dict[str, Any] = {
    "after": AT,
    "alias_name": "alias",
    "ascending": True,
    "assigned_users": [],
    "before": AT,
    "body": "hello",
    "chosen_options": ["yes"],
    "conf": {"a": 1},
    "conn_id": "plant",
    "dag_id": "dag",
    "dag_result": True,
    "defaults": ["yes"],
    "description": "what it is",
    "end_date": AT,
    "expires_at": AT,
    "extra": {"a": "b"},
    "include_prior_dates": True,
    "key": "a/key",
    "limit": 10,
    "logical_date": AT,
    "logical_dates": [AT, AT],
    "map_index": 3,
    "mapped_length": 2,
    "multiple": True,
    "name": "asset",
    "note": "a note",
    "offset": 1,
    "options": ["yes", "no"],
    "outlet_events": [],
    "params": {},
    "params_input": {},
    "partition_key": "key",
    "partition_key_regexp_pattern": "k.*",
    "pid": 7,
    "prefix": "pre",
    "previous_iteration": True,
    "rendered_map_index": "one",
    "reset_dag_run": True,
    "result_message": "fine",
    "retry_delay_seconds": 3.0,
    "retry_reason": "because",
    "run_after": AT,
    "run_id": "run",
    "run_ids": ["run", "other"],
    "start": 0,
    "states": ["success", "failed"],
    "step": 2,
    "stop": 9,
    "subject": "subject",
    "task_group_id": "group",
    "task_id": "task",
    "task_ids": ["one", "two"],
    "task_outlets": [],
    "try_number": 2,
    "uri": "s3://bucket/key",
    "value": "value",
    "when": AT,
}
"""By the names of the client's parameters; the ids are :data:`ME`."""
VALUES_OF_ONE: dict[tuple[str, str], dict[str, Any]] = {
    ("task_instances", "set_rtif"): {"body": {"field": "text"}},
    ("task_instances", "finish"): {"state": "failed"},
    ("task_instances", "defer"): {
        "msg": comms.DeferTask(classpath="a.Trigger", trigger_kwargs={}, next_method="resume", next_kwargs={})
    },
    ("task_instances", "await_input"): {"msg": comms.AwaitInputTask(timeout=None, next_method="resume", next_kwargs={})},
    ("task_instances", "reschedule"): {"msg": comms.RescheduleTask(reschedule_date=AT, end_date=AT)},
    ("task_instances", "skip_downstream_tasks"): {"msg": comms.SkipDownstreamTasks(tasks=["one", ("two", 3)])},
    ("connection_tests", "update_state"): {"state": "success"},
}
ONE_OF = ("name", "uri", "alias_name")
"""Parameters that exclude each other."""


class Called(Exception):
    """The client has made its request."""


class Recorder(sdk.Client):
    """Records the request instead of sending it."""

    def send(self, request: Any, **_: Any) -> Any:
        raise Called(request)


def operations() -> Iterator[tuple[str, str]]:
    """Return the client's operations: the name of a group, and of one in it."""
    client = _client()
    for group in sorted(dir(type(client))):
        if not group.startswith("_") and type(getattr(client, group)).__name__.endswith("Operations"):
            for name, _ in inspect.getmembers(type(getattr(client, group)), inspect.isfunction):
                if not name.startswith("_"):
                    yield group, name


def _client() -> Recorder:
    return Recorder(base_url="http://central.example/execution/", token="none")


def _variants(group: str, name: str, call: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """Return arguments for each way to make a call: with all parameters except those that exclude the others."""
    own = VALUES_OF_ONE.get((group, name), {})
    wanted = list(inspect.signature(call).parameters)
    said = {
        key: own[key]
        if key in own
        else ME
        if key in ("id", "ti_id") or key.endswith("_test_id") or key == "callback_id"
        else VALUES[key]
        for key in wanted
        if key not in ("state", "loop_decision") or key in own
    }
    if "state" in wanted and "state" not in own:
        said["state"] = "success"
    if "loop_decision" in wanted:
        from airflow.sdk.api.datamodels._generated import LoopDecisionPayload

        said["loop_decision"] = LoopDecisionPayload(stop=True, reason="done")
    choices = [key for key in ONE_OF if key in said]
    if len(choices) < 2:
        yield said
    for choice in choices if len(choices) >= 2 else ():
        yield {key: value for key, value in said.items() if key == choice or key not in choices}


def test_there_are_operations() -> None:
    assert {("task_instances", "start"), ("xcoms", "head"), ("hitl", "add_response")} <= set(operations())


@pytest.mark.parametrize("operation", operations(), ids=".".join)
def test_every_call_of_the_sdk_has_a_rule(operation: tuple[str, str]) -> None:
    group, name = operation
    call = getattr(getattr(_client(), group), name)
    for said in _variants(group, name, call):
        try:
            call(**said)
        except Called as called:
            (request,) = called.args
        else:
            pytest.fail("it sent nothing")
        url = request.url
        match = rules.find(request.method, url.raw_path.partition(b"?")[0].decode().removeprefix("/execution/"))
        rules.check_values(match, query=url.query, body=request.content)
