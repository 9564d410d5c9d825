"""The part of a deferral that Airflow gets, and the arguments of the resumed task."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

import testkit.ledger  # noqa: F401  isort: skip  (first: it points Airflow elsewhere)

from airflow.sdk.serde import deserialize, serialize
from airflow_remote_provider.api.gateway.rules import NotAllowed
from airflow_remote_provider.api.worker_v1 import deferral
from airflow_remote_provider.placeholder_names import FAIL, PLACEHOLDER, RESUMED_ELSEWHERE, TRIGGER_QUEUE

NOON = datetime(2030, 6, 1, 12, tzinfo=timezone.utc)
DATE_TIME = "airflow.providers.standard.triggers.temporal.DateTimeTrigger"


def _said(**changes: Any) -> dict[str, Any]:
    return {
        "state": "deferred",
        "classpath": "site.triggers.Wait",
        "trigger_kwargs": {"path": "/tmp/x"},
        "next_method": "resume",
        "next_kwargs": {"kept": "before"},
        **changes,
    }


def test_airflow_gets_a_placeholder_instead_of_the_workers_arguments() -> None:
    body = deferral.for_airflow(deferral.read(_said(trigger_timeout="PT60S", rendered_map_index="a")), "deferred")
    assert body == {
        "state": "deferred",
        "classpath": PLACEHOLDER,
        "trigger_kwargs": {},
        "queue": TRIGGER_QUEUE,
        "next_method": FAIL,
        "next_kwargs": RESUMED_ELSEWHERE,
        "trigger_timeout": "PT60S",
        "rendered_map_index": "a",
    }


def test_a_wait_for_input_has_no_trigger_and_keeps_its_arguments() -> None:
    said = {"state": "awaiting_input", "next_method": "execute_complete", "next_kwargs": {"a": 1}, "timeout": "PT60S"}
    wait = deferral.read(said)
    assert (wait.classpath, wait.next_method, json.loads(wait.next_kwargs)) == (None, "execute_complete", {"a": 1})
    body = deferral.for_airflow(wait, "awaiting_input")
    assert body == {"state": "awaiting_input", "next_method": FAIL, "next_kwargs": RESUMED_ELSEWHERE, "timeout": "PT60S"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"next_method": "os.system"}, "next_method"),
        ({"next_method": ""}, "next_method"),
        ({"next_method": "a" * 1001}, "next_method"),
        ({"next_method": "class"}, "next_method"),
        ({"next_method": None}, "next_method"),
        ({"next_kwargs": "gAAAA"}, "next_kwargs"),
        ({"next_kwargs": []}, "next_kwargs"),
        ({"next_kwargs": {"x": float("nan")}}, "next_kwargs"),
        ({"trigger_kwargs": "gAAAA"}, "trigger_kwargs"),
        ({"trigger_kwargs": {"x": float("inf")}}, "trigger_kwargs"),
        ({"trigger_kwargs": {"x": "a" * deferral.MOST_BYTES}}, "over the limit"),
        ({"classpath": "x"}, "classpath"),
        ({"classpath": "a.b c"}, "classpath"),
        ({"classpath": "a..b"}, "classpath"),
        ({"classpath": "a." + "b" * 1000}, "classpath"),
        ({"classpath": ["a.b"]}, "classpath"),
        ({"classpath": None}, "classpath"),
    ],
)
def test_an_invalid_deferral_is_refused_with_the_field_s_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(NotAllowed, match=named):
        deferral.read(_said(**changes))


@pytest.mark.parametrize("moment", [NOON, NOON.replace(hour=0)])
def test_a_wait_for_a_moment_runs_on_central_with_a_rebuilt_argument(moment: datetime) -> None:
    kwargs = serialize({"moment": moment, "end_from_trigger": False})
    wait = deferral.read(_said(classpath=DATE_TIME, trigger_kwargs=kwargs))
    assert wait.moment == moment
    assert deserialize(deferral.date_time_arguments(moment)) == {"moment": moment, "end_from_trigger": False}


def _moment(**data: Any) -> dict[str, Any]:
    zone = {"__classname__": "builtins.tuple", "__version__": 1, "__data__": ["UTC", "pendulum.tz.timezone.Timezone", 1, True]}
    return {"__classname__": "datetime.datetime", "__version__": 2, "__data__": {"timestamp": 1.9e9, "tz": zone, **data}}


@pytest.mark.parametrize(
    "arguments",
    [
        {"moment": _moment(tz=None)},
        {"moment": _moment(timestamp=1e300)},
        {"moment": _moment(timestamp=10**400)},
        {"moment": _moment(timestamp=-1)},
        {"moment": _moment(timestamp=True)},
        {"moment": _moment(timestamp="1.9e9")},
        {"moment": {**_moment(), "__classname__": "os.system"}},
        {"moment": "2030-01-01"},
        {"moment": None},
        {"target_time": "{{ conn.plant.password }}"},
        {"moment": _moment(), "target_time": "x"},
        {"moment": _moment(), "end_from_trigger": True},
        {},
    ],
)
def test_a_date_time_trigger_with_other_arguments_runs_at_the_site(arguments: dict[str, Any]) -> None:
    assert deferral.read(_said(classpath=DATE_TIME, trigger_kwargs=arguments)).moment is None


def test_any_other_trigger_runs_at_the_site() -> None:
    wait = deferral.read(_said(trigger_kwargs={"moment": _moment()}))
    assert wait.moment is None


def test_code_on_central_accepts_plain_values() -> None:
    plain = {"a": "text", "b": [1, 2.5, None, True], "c": {"d": "e"}, "at": _moment(), "for": serialize(_delta())}
    wait = deferral.read(_said(trigger_kwargs=plain))
    arguments = deferral.plain_arguments(wait)
    assert {name: arguments[name] for name in "abc"} == {name: plain[name] for name in "abc"}
    assert deserialize(dict(arguments))["at"] == datetime.fromtimestamp(1.9e9, timezone.utc)
    assert deserialize(dict(arguments))["for"] == _delta()


def _delta() -> Any:
    from datetime import timedelta

    return timedelta(seconds=5)


@pytest.mark.parametrize(
    "value",
    [
        "{{ conn.plant.password }}",
        "{% for x in y %}",
        {"x": ["{# #}"]},
        {"{{ x }}": 1},
        {"__classname__": "airflow.sdk.definitions.connection.Connection", "__version__": 1, "__data__": {}},
        {"__type": "airflow_exc_ser", "__var": {}},
        _moment(tz=None),
        _moment(timestamp=1e300),
        [[[[[[[[[[[[[["deep"]]]]]]]]]]]]]],
    ],
)
def test_code_on_central_accepts_no_templates_and_no_encoded_objects(value: Any) -> None:
    with pytest.raises(NotAllowed, match="code on central accepts"):
        deferral.plain_arguments(deferral.read(_said(trigger_kwargs={"x": value})))


@pytest.mark.parametrize("name", ["__classname__", "__type", "__var", "__init__", "", "a b", "{{ x }}"])
def test_code_on_central_accepts_no_names_that_change_the_decoded_object(name: str) -> None:
    wait = deferral.Wait("resume", "{}", "site.Trigger", "{}", {}, {name: "airflow.sdk.definitions.asset.Asset"})
    with pytest.raises(NotAllowed, match="name of an argument"):
        deferral.plain_arguments(wait)


def _answer(**changes: Any) -> bytes:
    return json.dumps({"dag_run": {"conf": {}}, "next_method": FAIL, "next_kwargs": {**RESUMED_ELSEWHERE, **changes}}).encode()


def test_a_resumed_task_gets_its_arguments_and_the_event() -> None:
    answer = deferral.resumed_answer(_answer(), method="resume", next_kwargs='{"kept": "before"}', event='{"at": 1}')
    assert answer is not None
    assert json.loads(answer) == {
        "dag_run": {"conf": {}},
        "next_method": "resume",
        "next_kwargs": {"kept": "before", "event": {"at": 1}},
    }


def test_the_event_of_a_trigger_on_central_is_taken_from_airflows_answer() -> None:
    answer = deferral.resumed_answer(_answer(event={"at": 2}), method="resume", next_kwargs="{}", event=None)
    assert answer is not None
    assert json.loads(answer)["next_kwargs"] == {"event": {"at": 2}}


@pytest.mark.parametrize(
    "body",
    [
        b'{"next_method": "__fail__", "next_kwargs": {"error": "Trigger timeout"}}',
        b'{"next_method": "resume", "next_kwargs": {"a": 1}}',
        b'{"next_method": null, "next_kwargs": null}',
        b"[]",
    ],
)
def test_a_task_that_something_else_resumed_gets_airflows_answer(body: bytes) -> None:
    assert deferral.resumed_answer(body, method="resume", next_kwargs="{}", event="1") is None
