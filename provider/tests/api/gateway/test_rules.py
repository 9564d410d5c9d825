"""Every route of the installed Airflow has a rule, and each rule limits the right calls."""

from __future__ import annotations

import json
import os
import random
import re
import uuid
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)
from testkit import execution_api  # isort: skip

from airflow_remote_protocol import bounds
from airflow_remote_protocol.messages import JobKind
from airflow_remote_provider.api.gateway import rules
from airflow_remote_provider.api.gateway.rules import LISTS_SINCE, TABLE, Meaning, Need, NotAllowed, read
from airflow_remote_provider.definitions.grants import Ask, GrantKind, Skip, named
from airflow_remote_provider.ledger.fence import Subject
from fastapi.routing import APIRoute
from starlette.routing import Match

ME, OTHER = uuid.UUID(int=0xA1), uuid.UUID(int=0xB2)  # the same in every process: they are in the names of tests
TASK = Subject(JobKind.TASK, ME, "mine", "run-1", "task", 3)
CALLBACK = Subject(JobKind.CALLBACK, ME, "mine")
TEST = Subject(JobKind.CONNECTION_TEST, ME)
TRIGGER = Subject(JobKind.TRIGGER, ME, "mine", "run-1", "task", 3)


def judge(subject: Subject, method: str, path: str, **call: Any) -> tuple[Need, ...]:
    return rules.judge(subject, rules.find(method, path), **call)


@pytest.fixture(scope="module")
def versions() -> dict[str, list[APIRoute]]:
    """The routes of the real application, by the API version that a task's SDK asks for."""
    return execution_api.versions()


def test_everything_in_this_airflows_execution_api_has_a_rule() -> None:
    assert execution_api.uncovered() == [], "a new route, parameter or field is refused until it has a rule"


def test_a_route_a_parameter_and_a_field_without_a_rule_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    less = [
        (method, path, replace(rule, query=frozenset(), body=bounds.Stored if rule.body is bounds.Run else rule.body))
        for method, path, rule in TABLE
        if path != "dags/{dag_id}"
    ]
    monkeypatch.setattr(execution_api, "TABLE", less)
    listed = set(execution_api.uncovered())
    assert {"GET dags/{dag_id}", "GET variables/keys ?prefix", "PATCH task-instances/{task_instance_id}/run {pid}"} <= listed


OF_SOME_VERSIONS = {
    ("PATCH", "callbacks/{callback_id}/run"),
    ("PATCH", "task-instances/{task_instance_id}/dag-run-note"),
}
"""Airflow 3.4 has them, 3.3 does not."""


def test_the_table_has_no_route_that_no_airflow_has(versions: dict[str, list[APIRoute]]) -> None:
    ours = [(method, path.replace(":path}", "}")) for method, path, _ in TABLE]
    assert len(ours) == len(set(ours))
    theirs = {
        (method, route.path.lstrip("/").replace(":path}", "}"))
        for routes in versions.values()
        for route in routes
        for method in route.methods
    }
    assert set(ours) - theirs in (set(), OF_SOME_VERSIONS)


TRICKY = [
    "variables/keys",
    "variables/keys/x",
    "variables/a/b/item/3",
    "connections/a",
    "connections/a/b",
    "xcoms/d/r/t/k",
    "xcoms/d/r/t/k/item/3",
    "xcoms/d/r/t/k/item/3/slice",
    "xcoms/d/r/t/item/3",
    "xcoms/d/r/t/slice",
    "xcoms/d/r/t/a/b/slice",
    "xcoms/d/r/t/k/item/3/item/4",
    "xcoms/d/r/t",
    "dag-runs/count",
    "dag-runs/previous",
    "dag-runs/previous/previous",
    "dag-runs/d/previous",
    "dag-runs/d/count",
    "dag-runs/d/r/state",
    "dag-runs/d/r/clear",
    "dag-runs/d/r/x",
    "task-instances/count",
    "task-instances/states",
    "task-instances/previous/d/t",
    "task-instances/previous/run",
    "task-instances/x/run",
    "store/ti/x",
    "store/ti/x/a/b",
    "store/asset/by-name/value",
    "store/asset/by-name/clear",
    "dags/d",
    "dags/d/x",
    "assets/by-name",
]


@pytest.mark.parametrize("path", TRICKY)
def test_a_path_is_read_as_airflow_reads_it(path: str, versions: dict[str, list[APIRoute]]) -> None:
    rules = {(method, pattern): rule for method, pattern, rule in TABLE}
    rules["GET", "connections/{connection_id}"] = rules["GET", "connections/{connection_id:path}"]  # before Airflow 3.4
    for version, routes in versions.items():
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            theirs = _as_airflow_reads(routes, method, path)
            if theirs is None:
                continue  # this version answers 404 or 405 in any case
            pattern, given = theirs
            rule, ours = read(method, path) or (None, {})
            if (method, path) == ("GET", "variables/keys") and version < LISTS_SINCE:
                continue  # the rule handles this: see below
            assert rule is not None
            assert _but_query(rule) == _but_query(rules[method, pattern]), f"{method} {path} in {version}"
            assert {name: given.get(name) for name in ours.keys() & given.keys()} == {
                name: ours[name] for name in ours.keys() & given.keys()
            }


@pytest.mark.parametrize(("method", "pattern", "rule"), TABLE, ids=lambda value: value if isinstance(value, str) else "")
def test_no_encoding_of_a_path_changes_its_rule(
    method: str, pattern: str, rule: rules.Rule, versions: dict[str, list[APIRoute]]
) -> None:
    """The rule decides the meaning of a call and Airflow's router its effect, so both must read the same path."""
    chance = random.Random(f"{method} {pattern}")
    newest = versions[max(versions)]
    for number in range(int(os.environ.get("SEARCH", "1")) * ENCODINGS // len(TABLE) + 1):
        path = re.sub(r"\{(\w+)(:path)?\}", lambda found: _named(chance, found[1]), pattern)
        spelled = "".join(_spelled(chance, char, odds=0.5 if number else 0.0) for char in path)
        found = rules.find(method, spelled)
        theirs = _as_airflow_reads(newest, method, found.decoded)
        if theirs is None:
            assert (method, pattern) in OF_SOME_VERSIONS, (spelled, found)
            return
        ours = {
            path.replace(":path}", "}") for way, path, one in TABLE if way == method and _but_query(one) == _but_query(found.rule)
        }
        assert theirs[0].replace(":path}", "}") in ours
        assert found.decoded == path
        assert {name: theirs[1][name] for name in found.named} == dict(found.named)
        if number == 0:
            assert found.rule is rule


def _but_query(rule: rules.Rule) -> rules.Rule:
    """Return the rule without its parameters: `dag-runs/x/previous` is two routes with one rule, by version."""
    return replace(rule, query=frozenset())


ENCODINGS = 10_000
"""Of all routes together, unless SEARCH asks for more."""


def _named(chance: random.Random, name: str) -> str:
    """Return a value for a part of a path."""
    if name in ("task_instance_id", "connection_test_id", "callback_id"):
        return str(ME)
    if name == "offset":
        return str(chance.randrange(100))
    characters = "abcXYZ019._-~ äß%&=+" + ("/" * 4 if name in ("key", "variable_key") else "")
    return "".join(chance.choice(characters) for _ in range(chance.randint(1, 8))).replace(".", "._") or "x"


def _spelled(chance: random.Random, char: str, *, odds: float) -> str:
    """Return one character of a path as a client may send it: unchanged, or percent-encoded in either case."""
    must = char in "%?# &=+" or not char.isascii()
    if not must and chance.random() >= odds:
        return char
    encoded = "".join(f"%{byte:02x}" for byte in char.encode())
    return encoded.upper() if chance.random() < 0.5 else encoded


CLIMBING = ["../x", "x/../y", "%2e%2e/x", "x/%2E%2e/y", "x%2f..%2fy", "./x", "x/./y", ".."]
GAPS = [
    "",
    "/x",
    "x//y",
    "x/",
    "%2F",
    "x%2F%2Fy",
    "/variables/a",
    "%2Fvariables/a",
    "task-instances//run",
    "dags//mine",
    "xcoms//r/t/k",
]


@pytest.mark.parametrize("path", CLIMBING)
def test_a_path_with_dot_segments_is_refused(path: str) -> None:
    with pytest.raises(NotAllowed, match="only dots"):
        rules.find("GET", path)


@pytest.mark.parametrize("path", GAPS)
def test_a_path_with_gaps_outside_of_a_key_has_no_rule(path: str) -> None:
    with pytest.raises(NotAllowed, match="no rule"):
        rules.find("GET", path)


KEYS = ["a/b", "/a", "a/", "//", "a//b", "a b", " a ", "100%", "%2F", "ключ", "💥/é", "a?b=c&d", "x#y", "item/3", "a+b", ""]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_the_rest_of_the_path(key: str) -> None:
    spelled = quote(key, safe="/")
    for method, path, parameter in (
        ("GET", "variables/", "variable_key"),
        ("PUT", "variables/", "variable_key"),
        ("POST", "xcoms/d/r/t/", "key"),
        ("DELETE", "xcoms/d/r/t/", "key"),
        ("PUT", f"store/ti/{ME}/", "key"),
    ):
        for spelling in (spelled, quote(key, safe="")):
            found = rules.find(method, path + spelling)
            assert found.named[parameter] == key
            assert found.decoded == path + key


def test_a_connection_may_have_slashes_in_its_id() -> None:
    """Airflow 3.4 has such a route; Airflow 3.3 answers 404."""
    found = rules.find("GET", "connections/a%2F/b")
    assert (found.meaning, found.named) == (Meaning.READ_SECRET, {"connection_id": "a//b"})


@pytest.mark.parametrize("path", ["variables/..a", "variables/a..b", "variables/...", "variables/%252e%252e"])
def test_dots_inside_a_name_are_allowed(path: str) -> None:
    assert rules.find("GET", path).meaning is Meaning.READ_SECRET


def test_only_the_rules_say_which_calls_start_or_end_a_task() -> None:
    meanings = {(method, path): rule.meaning for method, path, rule in TABLE if rule.meaning in (Meaning.START, Meaning.CONCLUDE)}
    assert meanings == {
        ("PATCH", "task-instances/{task_instance_id}/run"): Meaning.START,
        ("PATCH", "task-instances/{task_instance_id}/state"): Meaning.CONCLUDE,
    }


def test_an_old_sdk_that_lists_variables_reads_the_one_named_keys() -> None:
    def asked(*versions: str) -> tuple[Need, ...]:
        return judge(TASK, "GET", "variables/keys", query=b"prefix=plant_", versions=versions)

    listing, reading = (Ask(GrantKind.VARIABLES, ("plant_",), listing=True),), (Ask(GrantKind.VARIABLES, ("keys",)),)
    assert asked() == asked("2026-06-30") == asked("2027-01-01") == listing
    assert asked("2026-06-29") == asked("2025-04-11") == asked("2026-06-30", "2025-04-11") == reading
    for odd in ("2026-6-30", "20260630", "9", ""):
        with pytest.raises(NotAllowed, match="no version"):
            asked(odd)


def _as_airflow_reads(routes: list[APIRoute], method: str, path: str) -> tuple[str, dict[str, str]] | None:
    for route in routes:
        match, child = route.matches({"type": "http", "method": method, "path": f"/{path}", "root_path": "", "headers": []})
        if match is Match.FULL:
            return route.path.lstrip("/"), dict(child["path_params"])
    return None


def test_the_table_is_in_airflows_order_where_two_patterns_fit_one_path() -> None:
    ours = [(method, path) for method, path, _ in TABLE]
    for first, second in [
        ("variables/keys", "variables/{variable_key:path}"),
        ("xcoms/{dag_id}/{run_id}/{task_id}/{key:path}/slice", "xcoms/{dag_id}/{run_id}/{task_id}/{key:path}"),
    ]:
        assert ours.index(("GET", first)) < ours.index(("GET", second))


@pytest.mark.parametrize(
    ("subject", "method", "path"),
    [
        (TASK, "PATCH", f"task-instances/{ME}/run"),
        (TASK, "PATCH", f"task-instances/{ME}/state"),
        (TASK, "PUT", f"task-instances/{ME}/heartbeat"),
        (TASK, "PATCH", f"task-instances/{ME}/dag-run-note"),
        (CALLBACK, "PATCH", f"callbacks/{ME}/run"),
        (TASK, "PUT", f"task-instances/{ME}/rtif"),
        (TASK, "GET", f"task-reschedules/{ME}/start_date"),
        (TASK, "POST", f"hitlDetails/{ME}"),
        (TASK, "PUT", f"store/ti/{ME}/a%2Fb"),
        (TASK, "DELETE", f"store/ti/{ME}"),
        (TASK, "GET", "xcoms/mine/run-1/other_task/return_value?map_index=7"),
        (TASK, "GET", "xcoms/mine/run-1/other_task/a%2Fb/item/2"),
        (TASK, "GET", "xcoms/mine/run-1/other_task/return_value/slice?start=1&include_prior_dates=false"),
        (TASK, "HEAD", "xcoms/mine/run-1/other_task/return_value"),
        (TASK, "POST", "xcoms/mine/run-1/task/return_value?map_index=3&mapped_length=2"),
        (TASK, "DELETE", "xcoms/mine/run-1/task/return_value?map_index=3"),
        (TASK, "GET", "dag-runs/mine/run-0"),
        (TASK, "GET", "dag-runs/mine/run-0/state"),
        (TASK, "GET", "dag-runs/count?dag_id=mine&states=success"),
        (TASK, "GET", "dag-runs/mine/previous?logical_date=2026-01-01"),
        (TASK, "GET", "task-instances/states?dag_id=mine"),
        (TASK, "GET", "task-instances/previous/mine/task"),
        (TASK, "GET", "dags/mine"),
        (TRIGGER, "GET", "xcoms/mine/run-1/other_task/return_value"),
        (TRIGGER, "GET", "dag-runs/mine/run-0/state"),
        (TRIGGER, "GET", f"hitlDetails/{ME}"),
        (TEST, "GET", f"connection-tests/{ME}/connection"),
        (TEST, "PATCH", f"connection-tests/{ME}"),
    ],
)
def test_calls_about_the_jobs_own_objects_need_no_grant(subject: Subject, method: str, path: str) -> None:
    assert _judged(subject, method, path) == ()


@pytest.mark.parametrize(
    ("subject", "method", "path", "kind", "names"),
    [
        (TASK, "GET", "connections/plant", GrantKind.CONNECTIONS, ("plant",)),
        (CALLBACK, "GET", "connections/plant", GrantKind.CONNECTIONS, ("plant",)),
        (TASK, "GET", "variables/a%2Fb", GrantKind.VARIABLES, ("a/b",)),
        (TASK, "GET", "connections/a%2Fb", GrantKind.CONNECTIONS, ("a/b",)),
        (TASK, "GET", "variables/keys/x", GrantKind.VARIABLES, ("keys/x",)),
        (CALLBACK, "GET", "variables/a", GrantKind.VARIABLES, ("a",)),
        (TRIGGER, "GET", "connections/plant", GrantKind.CONNECTIONS, ("plant",)),
        (TRIGGER, "GET", "variables/a", GrantKind.VARIABLES, ("a",)),
        (TRIGGER, "GET", "dag-runs/count?dag_id=other", GrantKind.DAGS, ("other",)),
        (TASK, "PUT", "variables/keys", GrantKind.WRITES, ("keys",)),
        (TASK, "DELETE", "variables/a", GrantKind.WRITES, ("a",)),
        (TASK, "GET", "xcoms/other/run-1/task/key", GrantKind.XCOMS_OF, ("other",)),
        (TASK, "GET", "xcoms/mine/run-0/task/key", GrantKind.XCOMS_OF, ("mine",)),
        (TASK, "GET", "xcoms/mine/run-1/task/key?include_prior_dates=true", GrantKind.XCOMS_OF, ("mine",)),
        (TASK, "GET", "xcoms/mine/run-1/task/key?include_prior_dates=on", GrantKind.XCOMS_OF, ("mine",)),
        (TASK, "HEAD", "xcoms/other/run-1/task/key", GrantKind.XCOMS_OF, ("other",)),
        (TASK, "GET", "dags/other", GrantKind.DAGS, ("other",)),
        (TASK, "GET", "dags/other", GrantKind.DAGS, ("other",)),
        (TASK, "GET", "dag-runs/previous?dag_id=other&logical_date=x", GrantKind.DAGS, ("other",)),
        (TASK, "POST", "dag-runs/other/run-9", GrantKind.TRIGGER_DAGS, ("other",)),
        (TASK, "POST", "dag-runs/mine/run-9", GrantKind.TRIGGER_DAGS, ("mine",)),
        (TASK, "POST", "dag-runs/mine/run-1/clear", GrantKind.TRIGGER_DAGS, ("mine",)),
        (TASK, "GET", "task-instances/count?dag_id=other", GrantKind.DAGS, ("other",)),
        (TASK, "GET", "task-instances/count", GrantKind.DAGS, ("",)),
        (TASK, "GET", "task-instances/breadcrumbs?dag_id=other&run_id=r", GrantKind.DAGS, ("other",)),
        (TASK, "GET", "assets/by-name?name=a", GrantKind.ASSETS, ("a",)),
        (TASK, "GET", "assets/by-alias?alias_name=a", GrantKind.ASSETS, ("a",)),
        (TASK, "GET", "asset-events/by-asset?name=a&uri=s3%3A%2F%2Fb", GrantKind.ASSETS, ("a", "s3://b")),
        (TASK, "GET", "asset-events/by-asset?name=&uri=", GrantKind.ASSETS, ("",)),
        (TASK, "GET", "asset-events/by-asset-alias?name=a", GrantKind.ASSETS, ("a",)),
        (TASK, "GET", "store/asset/by-name/value?name=a&key=k", GrantKind.ASSETS, ("a",)),
        (TASK, "GET", "store/asset/by-uri/value?uri=s3%3A%2F%2Fb&key=k", GrantKind.ASSETS, ("s3://b",)),
        (TASK, "PUT", "store/asset/by-name/value?name=a&key=k", GrantKind.ASSET_WRITES, ("a",)),
        (TASK, "PUT", "store/asset/by-uri/value?uri=s3%3A%2F%2Fb&key=k", GrantKind.ASSET_WRITES, ("s3://b",)),
        (TASK, "DELETE", "store/asset/by-name/value?name=a&key=k", GrantKind.ASSET_WRITES, ("a",)),
        (TASK, "DELETE", "store/asset/by-uri/value?uri=s3%3A%2F%2Fb&key=k", GrantKind.ASSET_WRITES, ("s3://b",)),
        (TASK, "DELETE", "store/asset/by-name/clear?name=a", GrantKind.ASSET_WRITES, ("a",)),
        (TASK, "DELETE", "store/asset/by-uri/clear?uri=s3%3A%2F%2Fb", GrantKind.ASSET_WRITES, ("s3://b",)),
    ],
)
def test_calls_about_other_objects_need_a_grant(
    subject: Subject, method: str, path: str, kind: GrantKind, names: tuple[str, ...]
) -> None:
    assert _judged(subject, method, path) == (Ask(kind, names),)


def test_a_question_about_one_run_of_another_dag_names_the_run() -> None:
    for path in ("dag-runs/other/run-1", "dag-runs/other/run-1/state"):
        assert _judged(TASK, "GET", path) == (Ask(GrantKind.DAGS, ("other",), run="run-1"),)
    assert _judged(TASK, "GET", "dag-runs/previous?dag_id=other&run_id=run-1") == (Ask(GrantKind.DAGS, ("other",)),)


def test_listing_needs_a_grant_of_the_whole_prefix() -> None:
    assert _judged(TASK, "GET", "variables/keys?prefix=plant_") == (Ask(GrantKind.VARIABLES, ("plant_",), listing=True),)
    assert _judged(TASK, "GET", "variables/keys") == (Ask(GrantKind.VARIABLES, ("",), listing=True),)


@pytest.mark.parametrize(
    ("subject", "method", "path"),
    [
        (TASK, "PATCH", f"task-instances/{OTHER}/run"),
        (TASK, "PATCH", f"task-instances/{OTHER}/state"),
        (TASK, "PATCH", f"task-instances/{str(ME).upper()}/state"),
        (TASK, "GET", f"store/ti/{OTHER}/key"),
        (TASK, "PATCH", f"hitlDetails/{OTHER}"),
        (TASK, "POST", "xcoms/mine/run-1/other_task/key?map_index=3"),
        (TASK, "POST", "xcoms/mine/run-0/task/key?map_index=3"),
        (TASK, "POST", "xcoms/mine/run-1/task/key"),
        (TASK, "POST", "xcoms/mine/run-1/task/key?map_index=4"),
        (TASK, "POST", "xcoms/mine/run-1/task/key?map_index=3&map_index=4"),
        (TASK, "DELETE", "xcoms/other/run-1/task/key?map_index=3"),
        (TASK, "GET", "dag-runs/count?dag_id=mine&dag_id=other"),
        (TASK, "GET", "assets/by-name?name=a&name=b"),
        (TASK, "GET", "variables/a%0A"),
        (TASK, "HEAD", "connections/a"),
        (TASK, "OPTIONS", "variables/a"),
        (TASK, "GET", "openapi.json"),
        (TASK, "GET", "docs"),
        (TASK, "GET", "new/in/airflow/4"),
        (TASK, "GET", f"connection-tests/{ME}/connection"),
        (TRIGGER, "PATCH", f"task-instances/{ME}/run"),
        (TRIGGER, "PATCH", f"task-instances/{ME}/state"),
        (TRIGGER, "PUT", "variables/a"),
        (TRIGGER, "POST", "xcoms/mine/run-1/task/return_value?map_index=3"),
        (TRIGGER, "PUT", f"store/ti/{ME}/a"),
        (TRIGGER, "POST", "dag-runs/mine/run-9/clear"),
        (TASK, "GET", "xcoms/../mine/task/key"),
        (TASK, "GET", "dags/%2e%2e"),
        (TASK, "GET", "dags//mine"),
        (CALLBACK, "PUT", "variables/a"),
        (CALLBACK, "GET", "variables/keys"),
        (CALLBACK, "GET", "xcoms/mine/run/task/key"),
        (CALLBACK, "PATCH", f"task-instances/{ME}/run"),
        (CALLBACK, "GET", f"connection-tests/{ME}/connection"),
        (TEST, "GET", "connections/vault"),
        (TEST, "GET", "variables/a"),
        (TEST, "GET", f"connection-tests/{OTHER}/connection"),
        (TEST, "PATCH", f"connection-tests/{OTHER}"),
        (TEST, "DELETE", f"connection-tests/{ME}"),
        (CALLBACK, "PATCH", f"callbacks/{OTHER}/run"),
        (TASK, "PATCH", f"callbacks/{ME}/run"),
        (TASK, "PATCH", f"task-instances/{OTHER}/dag-run-note"),
        (CALLBACK, "PATCH", f"task-instances/{ME}/dag-run-note"),
    ],
)
def test_no_grant_allows_any_other_call(subject: Subject, method: str, path: str) -> None:
    with pytest.raises(NotAllowed):
        _judged(subject, method, path)


def test_an_encoded_slash_separates_segments_as_in_airflow() -> None:
    assert _judged(TASK, "GET", "xcoms/mine%2Frun-1/task/key/x") == (), "Airflow reads it as run-1 of mine"
    assert _judged(TASK, "GET", "xcoms/other%2Frun-1%2Ftask/key") == (Ask(GrantKind.XCOMS_OF, ("other",)),)
    assert _judged(TEST, "GET", f"connection-tests/{ME}%2Fconnection") == ()


def test_the_refusal_of_an_unknown_route_names_the_supported_version() -> None:
    with pytest.raises(NotAllowed, match=f"no rule for it.*up to {bounds.NEWEST_API_VERSION}"):
        _judged(TASK, "GET", "new/in/airflow/4")


def test_outlets_that_a_task_reports_as_changed_need_grants() -> None:
    outlets = [
        {"name": "a", "uri": "s3://a", "type": "Asset"},
        {"name": "b", "uri": "s3://granted", "type": "AssetNameRef"},
        {"name": "granted", "uri": "s3://c", "type": "AssetUriRef"},
        {"name": "d", "type": "AssetAlias"},
    ]
    events = [
        {"dest_asset_key": {"name": "a", "uri": "s3://a"}, "extra": {}},
        {"dest_asset_key": {"name": "f", "uri": "s3://f"}, "extra": {}},
        {"source_alias_name": "e", "dest_asset_key": {"name": "g", "uri": "s3://g"}, "extra": {}},
    ]
    said = {"state": "success", "task_outlets": outlets, "outlet_events": events}
    asks = _judged(TASK, "PATCH", f"task-instances/{ME}/state", said)
    assert {ask.kind for ask in asks if isinstance(ask, Ask)} == {GrantKind.ASSET_WRITES}
    assert [ask.names for ask in asks] == [
        *(("a", "s3://a"), ("b",), ("s3://c",), ("d",)),
        *(("f", "s3://f"), ("e",), ("g",), ("s3://g",)),
    ]
    assert (
        _judged(TASK, "PATCH", f"task-instances/{ME}/state", {"state": "success", "task_outlets": [], "outlet_events": []}) == ()
    )


def test_a_granted_name_does_not_cover_another_uri_of_an_alias_event() -> None:
    """Airflow creates the asset of that name and URI, and starts the Dags that wait for either."""
    event = {"source_alias_name": "alias", "dest_asset_key": {"name": "mine", "uri": "s3://theirs"}, "extra": {}}
    said = {"task_outlets": [{"name": "alias", "type": "AssetAlias"}], "outlet_events": [event]}
    granted = named({GrantKind.ASSET_WRITES: ["alias", "mine", "s3://mine"]})
    asks = [ask for ask in _judged(TASK, "PATCH", f"task-instances/{ME}/state", said) if isinstance(ask, Ask)]
    assert [ask.name for ask in asks if not granted.allows(ask)] == ["s3://theirs"]


def test_the_tasks_that_a_job_skips_are_compared_with_its_definition() -> None:
    said = {"tasks": ["a", ["b", 3], ["c", -1], "a"]}
    (need,) = _judged(TASK, "PATCH", f"task-instances/{ME}/skip-downstream", said)
    assert need == Skip(frozenset({("a", -1), ("b", 3), ("c", -1)}))
    assert _judged(TASK, "PATCH", f"task-instances/{ME}/skip-downstream", {"tasks": []}) == ()


@pytest.mark.parametrize("said", [[], {}, {"tasks": None}, {"tasks": [1]}, {"tasks": [["a"]]}, {"tasks": [["a", "1"]]}, "x"])
def test_tasks_to_skip_that_cannot_be_read_are_refused(said: object) -> None:
    with pytest.raises(NotAllowed, match="does not name tasks"):
        _judged(TASK, "PATCH", f"task-instances/{ME}/skip-downstream", said)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_request_for_input_is_about_the_jobs_own_task_instance_in_its_body_too(method: str) -> None:
    assert _judged(TASK, method, f"hitlDetails/{ME}", {"ti_id": str(ME), "options": ["yes"]}) == ()
    with pytest.raises(NotAllowed, match="another task instance"):
        _judged(TASK, method, f"hitlDetails/{ME}", {"ti_id": str(OTHER), "options": ["yes"]})


def test_a_deferral_needs_no_grant_because_its_trigger_does_not_run_on_central() -> None:
    said = {"state": "deferred", "classpath": "x.Trigger", "trigger_kwargs": {"a_conn_id": "a"}, "next_method": "resume"}
    assert _judged(TASK, "PATCH", f"task-instances/{ME}/state", said) == ()


@pytest.mark.parametrize("said", [[], "text", {"task_outlets": "text"}, {"task_outlets": [{}]}, {"outlet_events": [None]}])
def test_an_invalid_state_is_refused(said: object) -> None:
    with pytest.raises(NotAllowed, match="not a valid task state"):
        _judged(TASK, "PATCH", f"task-instances/{ME}/state", said)


def test_a_body_that_is_not_json_is_left_to_airflow() -> None:
    for body in (b"", b"not json", b"\xff"):
        assert judge(TASK, "PATCH", f"task-instances/{ME}/state", body=body) == ()


def test_a_name_longer_than_any_of_airflows_is_refused() -> None:
    assert _judged(TASK, "GET", "variables/" + "a" * 2000)
    with pytest.raises(NotAllowed, match="2000 characters"):
        _judged(TASK, "GET", "variables/" + "a" * 2001)


def test_too_many_outlets_are_refused_and_repeats_do_not_count() -> None:
    def state(count: int, of: int) -> tuple[Need, ...]:
        outlets = [{"name": f"a{number % of}", "uri": "s3://a", "type": "Asset"} for number in range(count)]
        return _judged(TASK, "PATCH", f"task-instances/{ME}/state", {"task_outlets": outlets})

    assert len(state(5000, of=500)) == 500
    with pytest.raises(NotAllowed, match="501 grants"):
        state(501, of=501)


def test_a_deeply_nested_body_is_refused() -> None:
    with pytest.raises(NotAllowed, match="nested"):
        judge(TASK, "PATCH", f"task-instances/{ME}/state", body=b"[" * 1_000_000)


def _judged(subject: Subject, method: str, path: str, said: object = None) -> tuple[Need, ...]:
    path, _, query = path.partition("?")
    return judge(subject, method, path, query=query.encode(), body=json.dumps(said if said is not None else {}).encode())
