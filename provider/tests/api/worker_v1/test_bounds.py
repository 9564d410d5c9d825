"""The values of a call that are passed on to the Execution API, and the texts of refusals."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)
from testkit import execution_api  # isort: skip

from airflow_remote_protocol import bounds
from airflow_remote_protocol.bounds import OutOfBounds, check
from airflow_remote_provider import compat
from airflow_remote_provider.api.gateway.rules import TABLE, check_values, find

NOW = "2026-11-29T12:00:00Z"
ABSURD_DATES = [
    *("0001-01-01T00:00:00+14:00", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00"),
    *("2026-11-29T12:00:00", "tomorrow", "", 0, 1e300, None, [NOW], True),
]


def _body(body_type: Any, said: object, *, stored: bounds.Dates | None = None) -> None:
    check(body_type, named={}, query=[], body=said if isinstance(said, bytes) else json.dumps(said).encode(), stored=stored)


def _state(state: str, **fields: object) -> dict[str, object]:
    return {"state": state, "end_date": NOW, **fields}


EVENT = {"dest_asset_key": {"name": "a", "uri": "s3://a"}, "extra": {"rows": 3}}


@pytest.mark.parametrize(
    ("body_type", "said"),
    [
        (bounds.Run, {"state": "running", "hostname": "", "unixname": "u", "pid": 2**31 - 1, "start_date": NOW}),
        (bounds.Heartbeat, {"hostname": "h", "pid": 0}),
        (bounds.State, _state("failed", rendered_map_index="a" * 250)),
        (bounds.State, _state("failed", rendered_map_index=None, end_date="2026-11-29T12:00:00.123456+05:30")),
        (bounds.State, _state("up_for_retry", retry_delay_seconds=0, retry_reason="because")),
        (bounds.State, _state("up_for_retry", retry_delay_seconds=366 * 86400, retry_reason=None)),
        (bounds.State, _state("up_for_reschedule", reschedule_date="2099-12-31T23:59:59Z")),
        (bounds.State, {"state": "deferred", "next_method": "résumer", "trigger_timeout": "PT1H30M0.5S", "queue": None}),
        (bounds.State, {"state": "awaiting_input", "next_method": "execute_complete", "next_kwargs": {"a": [{"b": None}]}}),
        (bounds.State, _state("success", task_outlets=[{"type": "Asset", "name": "a", "uri": "s3://a"}], outlet_events=[EVENT])),
        (bounds.State, _state("success", task_outlets=[{"type": "AssetAlias", "name": "a", "uri": None}])),
        (bounds.State, _state("success", outlet_events=[{**EVENT, "source_alias_name": "b", "dest_asset_extra": {}}])),
        (bounds.State, _state("success", outlet_events=[{**EVENT, "partition_key": "2026"}, {**EVENT, "partition_key": None}])),
        (bounds.SkipDownstream, {"tasks": ["a", ["b", -1], ["c", 7]]}),
        (bounds.RenderedMapIndex, "a" * 250),
        (bounds.RenderedFields, {"bash_command": "echo", "env": {"A": [1, 2.5, None]}}),
        (bounds.InputRequest, {"ti_id": "x", "options": ["yes"], "subject": "?", "assigned_users": [{"id": "1", "name": "ada"}]}),
        (bounds.InputResponse, {"ti_id": "x", "chosen_options": ["yes"], "params_input": {"a": 1}}),
        (bounds.Stored, {"value": {"cursor": "\\u0000"}, "expires_at": "2030-01-01T00:00:00+00:00"}),
        (bounds.Stored, {"value": 1, "expires_at": None}),
        (bounds.NewRun, {"logical_date": "1912-04-15T00:00:00Z", "run_after": NOW, "conf": {"a": 1}, "note": "x"}),
        (bounds.Variable, {"val": None, "description": None}),
        (Any, [1, "zwei", {"3": 10**100, "emoji": "😀"}]),
        (Any, {"unknown": "to us"}),
        (bounds.State, {"state": "success", "loop_decision": {"stop": True, "reason": "enough"}}),
        (bounds.State, {"state": "success", "loop_decision": None}),
        (bounds.Note, {"note": "done"}),
        (bounds.State, b""),
    ],
)
def test_valid_bodies_pass(body_type: Any, said: object) -> None:
    _body(body_type, said)


@pytest.mark.parametrize(
    ("body_type", "said", "name"),
    [
        (bounds.Run, {"pid": 2**31}, "pid"),
        (bounds.Run, {"pid": 10**30}, "pid"),
        (bounds.Run, {"pid": -1}, "pid"),
        (bounds.Run, {"unixname": "u" * 1001}, "unixname"),
        (bounds.Heartbeat, {"hostname": "h" * 1001}, "hostname"),
        (bounds.State, {"retry_delay_seconds": 1e300}, "retry_delay_seconds"),
        (bounds.State, {"retry_delay_seconds": -0.5}, "retry_delay_seconds"),
        (bounds.State, {"retry_delay_seconds": "60"}, "retry_delay_seconds"),
        (bounds.State, {"retry_reason": "a" * 65_536}, "retry_reason"),
        (bounds.State, {"rendered_map_index": "a" * 251}, "rendered_map_index"),
        (bounds.State, {"next_method": "a b"}, "next_method"),
        (bounds.State, {"next_method": "a.b"}, "next_method"),
        (bounds.State, {"next_method": ""}, "next_method"),
        (bounds.State, {"trigger_timeout": "P9999999D"}, "trigger_timeout"),
        (bounds.State, {"trigger_timeout": "P11Y"}, "trigger_timeout"),
        (bounds.State, {"timeout": 1e300}, "timeout"),
        (bounds.State, {"timeout": "-P9999D"}, "timeout"),
        (bounds.State, {"timeout": "P"}, "timeout"),
        (bounds.State, {"timeout": "1 day"}, "timeout"),
        (bounds.State, {"queue": "q" * 251}, "queue"),
        (bounds.State, {"task_outlets": [{"type": "Asset", "name": "a" * 1501}]}, "name"),
        (bounds.State, {"outlet_events": [{"dest_asset_key": {"name": "a"}, "extra": {}}]}, "uri"),
        (bounds.State, {"outlet_events": [{**EVENT, "dest_asset_key": {"name": "a", "uri": "b", "group": "c"}}]}, "group"),
        (bounds.State, {"outlet_events": [{**EVENT, "dest_asset_key": {"name": "é", "uri": "b"}}]}, "name"),
        (bounds.State, {"outlet_events": [{**EVENT, "extra": 1}]}, "extra"),
        (bounds.State, {"outlet_events": [{**EVENT, "partition_key": 5}]}, "partition_key"),
        (bounds.State, {"outlet_events": [{**EVENT, "source_alias_name": None}]}, "source_alias_name"),
        (bounds.SkipDownstream, {"tasks": ["a"] * 5001}, "tasks"),
        (bounds.SkipDownstream, {"tasks": [["a", 2**31]]}, "int"),
        (bounds.SkipDownstream, {"tasks": [["a", -2]]}, "int"),
        (bounds.SkipDownstream, {"tasks": ["a" * 251]}, "str"),
        (bounds.SkipDownstream, {"tasks": [{"a": 1}]}, "str"),
        (bounds.SkipDownstream, {"tasks": [["a", 1, 2]]}, "str"),
        (bounds.RenderedMapIndex, "a" * 251, "str"),
        (bounds.RenderedFields, [], "object"),
        (bounds.RenderedFields, {}, "length >= 1"),
        (bounds.InputRequest, {"assigned_users": [{"id": 1, "name": "x"}]}, "assigned_users"),
        (bounds.InputResponse, {"chosen_options": ["a" * 65_536]}, "chosen_options"),
        (bounds.NewRun, {"note": "a" * 1001}, "note"),
        (bounds.NewRun, {"partition_key": "a" * 251}, "partition_key"),
        (bounds.NewRun, {"logical_date": "1899-12-31T00:00:00Z"}, "logical_date"),
        (bounds.NewRun, {"run_after": "2200-01-01T00:00:00Z"}, "run_after"),
        (bounds.Variable, {"description": "a" * 65_536}, "description"),
    ],
)
def test_a_value_out_of_bounds_is_refused_and_named(body_type: Any, said: object, name: str) -> None:
    with pytest.raises(OutOfBounds, match=name):
        _body(body_type, said)


@pytest.mark.parametrize("date", ABSURD_DATES)
@pytest.mark.parametrize(
    ("body_type", "name"), [(bounds.Run, "start_date"), (bounds.State, "end_date"), (bounds.State, "reschedule_date")]
)
def test_a_date_of_a_task_has_a_time_zone_and_a_year_of_this_century(body_type: Any, name: str, date: object) -> None:
    with pytest.raises(OutOfBounds, match=name):
        _body(body_type, {name: date})


def test_dates_are_limited_to_the_range_of_timestamp_columns() -> None:
    _body(bounds.State, {"reschedule_date": "2038-01-20T00:00:00Z"})
    _body(bounds.State, {"reschedule_date": "2038-01-18T00:00:00Z"}, stored=compat.MYSQL_TIMESTAMPS)
    for body_type, name, date in [
        (bounds.State, "reschedule_date", "2038-01-20T00:00:00Z"),
        (bounds.Stored, "expires_at", "2050-01-01T00:00:00Z"),
        (bounds.NewRun, "logical_date", "1969-01-01T00:00:00Z"),
    ]:
        with pytest.raises(OutOfBounds, match=f"{name}` is not from .* to 2038-01-19"):
            _body(body_type, {name: date}, stored=compat.MYSQL_TIMESTAMPS)


@pytest.mark.parametrize("days", [0, 1, 7, 100, 365, 366, 800, 3660])
def test_a_duration_is_read_as_pydantic_writes_it(days: int) -> None:
    from pydantic import TypeAdapter

    for duration in (timedelta(days=days), timedelta(days=days, seconds=-1, microseconds=5), -timedelta(days=days)):
        said = json.loads(TypeAdapter(timedelta).dump_json(duration))
        _body(bounds.State, {"state": "deferred", "trigger_timeout": said})


@pytest.mark.parametrize(
    "body",
    [
        *(b"NaN", b"Infinity", b"-Infinity", b"1e400", b'{"a":[{"b":NaN}]}', b"9" * 5000),
        *(b'"\\ud800"', b'{"\\udfff":1}', b'"\xff"', '"x"'.encode("utf-16"), b'\xef\xbb\xbf"x"'),
        *(b'"\\u0000"', b'{"a\\u0000":1}', b'"\\\\\\u0000"', b'"\x00"', b"[" * 90_000, b"[" * 101 + b"]" * 101, b"{", b"x", b" "),
    ],
)
@pytest.mark.parametrize("body_type", [Any, bounds.State, bounds.RenderedFields])
def test_json_that_no_database_can_store_is_refused(body_type: Any, body: bytes) -> None:
    with pytest.raises(OutOfBounds, match="its body"):
        _body(body_type, body)


def test_a_backslash_before_u0000_is_text() -> None:
    _body(Any, b'"\\\\u0000"')
    _body(Any, json.dumps("C:\\u0000").encode())


def test_a_hundred_levels_are_not_too_deep() -> None:
    _body(Any, b"[" * 100 + b"]" * 100)
    _body(Any, b"[" + b"[1]," * 1000 + b"[2]]")


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        *(
            (f"{name}={number}", True)
            for name in ("map_index", "offset", "start", "stop", "step")
            for number in (0, -1, 2**31 - 1)
        ),
        *(
            (f"{name}={number}", False)
            for name in sorted(bounds.INTEGERS)
            for number in (2**31, -(2**31), 10**30, "x", "1.5", "")
        ),
        *(("limit=-1", False), ("mapped_length=-1", False), ("mapped_length=0", True), ("map_index=1&map_index=x", False)),
        *((f"{name}=2026-11-29T12:00:00%2B01:00", True) for name in sorted(bounds.MOMENTS)),
        *((f"{name}=9999-12-31T23:59:59-14:00", False) for name in sorted(bounds.MOMENTS)),
        *((f"{name}=2026-11-29T12:00:00", False) for name in sorted(bounds.MOMENTS)),
        *(("logical_dates=2026-11-29T12:00:00Z&logical_dates=never", False), ("states=%00", False), ("%00=1", False)),
        *(("states=success&states=failed&dag_id=x&prefix=", True), ("map_index=\u0663", False)),
    ],
)
def test_parameters_are_bounded_by_their_names(query: str, fits: bool) -> None:
    known = bounds.INTEGERS | bounds.MOMENTS | {"states", "dag_id", "prefix"}

    def ask() -> None:
        check(None, named={}, query=parse_qsl(query, keep_blank_values=True), body=b"", known=known)

    if fits:
        ask()
    else:
        with pytest.raises(OutOfBounds, match="the parameter"):
            ask()


def test_a_number_in_a_path_is_bounded_too() -> None:
    check_values(find("GET", "xcoms/d/r/t/k/item/-3"))
    with pytest.raises(OutOfBounds, match="'offset' is '1000"):
        check_values(find("GET", f"xcoms/d/r/t/k/item/{10**30}"))


def test_each_route_that_reads_a_body_bounds_it() -> None:
    """Exactly those of Airflow's own routes that have a body have a type in the table."""
    newest = execution_api.versions()
    routes = newest[max(newest)]
    served = {(method, route.path.lstrip("/")) for route in routes for method in route.methods}
    with_body = {(method, route.path.lstrip("/")) for route in routes for method in route.methods if route.body_field is not None}
    assert {(method, path) for method, path, rule in TABLE if rule.body is not None} & served == with_body


def test_today_is_within_the_bounds() -> None:
    assert datetime.now(timezone.utc) < bounds.LATEST


ASSET = {"__classname__": "airflow.sdk.definitions.asset.Asset", "__version__": 1, "__data__": {"name": "a"}}
OLD_ASSET = {"__type": "airflow.sdk.definitions.asset.Asset", "__var": {"name": "a"}}


@pytest.mark.parametrize("encoded", [ASSET, OLD_ASSET, [[{"a": ASSET}]], {"b": [OLD_ASSET]}])
def test_an_encoded_object_is_refused(encoded: object) -> None:
    """A user's answer is decoded when the task resumes; an XCom that is a text, when a user views it."""
    for body_type, name in ((bounds.InputRequest, "params"), (bounds.InputResponse, "params_input")):
        with pytest.raises(OutOfBounds, match=f"`{name}` contains an encoded object"):
            _body(body_type, {name: {"x": encoded}})
    escaped = json.dumps(encoded).replace("__", "\\u005f\\u005f")
    for text in (json.dumps(encoded), escaped):
        with pytest.raises(OutOfBounds, match="contains an encoded object"):
            _body(bounds.XCom, text)
        with pytest.raises(OutOfBounds, match="contains an encoded object"):
            bounds.check_xcom(text)


@pytest.mark.parametrize(
    "value", [ASSET, "a __text__", json.dumps({"rows": 3, "__name": 1}), "[" * 100_000 + "__", 7, None, [ASSET]]
)
def test_an_ordinary_xcom_is_passed_on(value: object) -> None:
    _body(bounds.XCom, value)
    param = {"value": 1, "description": None, "schema": {}, "__class": "airflow.sdk.definitions.param.Param"}
    _body(bounds.InputRequest, {"params": {"x": param}})


@pytest.mark.parametrize(
    "version",
    ["2026-04-05", "2025-04-28", "", "1", "2026-4-6", "9999", "2026-10-31", "2027-01-01", "\uff12026-04-06", "2026-04-06x"],
)
def test_a_version_for_which_airflow_decodes_is_refused(version: str) -> None:
    with pytest.raises(OutOfBounds, match="Task SDK of central's Airflow version"):
        bounds.check_versions(["2026-06-30", version])


def test_a_version_that_the_rules_are_made_for_is_passed_on() -> None:
    bounds.check_versions([])
    bounds.check_versions(["2026-04-06", "2026-06-30", "2026-10-30"])


@pytest.mark.parametrize(
    ("body_type", "said", "field"),
    [
        (bounds.Run, {"new": 1}, "new"),
        (bounds.State, {"state": "success", "a_field_of_a_newer_airflow": None}, "a_field_of_a_newer_airflow"),
        (bounds.State, {"state": "server_terminated", "hostname": "10.0.0.1", "pid": 1}, "hostname"),
        (bounds.State, {"state": "failed", "pid": 1}, "pid"),
        (bounds.State, {"loop_decision": {"stop": True, "new": 1}}, "new"),
        (bounds.NewRun, {"new": 1}, "new"),
        (bounds.TestResult, {"new": 1}, "new"),
    ],
)
def test_a_field_that_has_no_rule_is_refused_and_the_version_named(body_type: Any, said: object, field: str) -> None:
    with pytest.raises(OutOfBounds, match=f"unknown field `{field}`.*Execution API up to 2026-10-30"):
        _body(body_type, said)


def test_a_parameter_that_has_no_rule_is_refused_and_the_version_named() -> None:
    check(None, named={}, query=[("map_index", "1")], body=b"", known={"map_index"})
    with pytest.raises(OutOfBounds, match=r"parameter 'new', for which there is no rule.*Execution API up to 2026-10-30"):
        check(None, named={}, query=[("map_index", "1"), ("new", "")], body=b"", known={"map_index"})
