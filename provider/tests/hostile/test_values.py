"""Values in the calls of a real task instance: none causes an internal error, and no call does more than its grant allows.

The Execution API and its database are Airflow's own: it finds the task instance, so that the values get past the lookup.
"""

from __future__ import annotations

from testkit.real_tasks import RUN_ID, configure_airflow, reset_task_instances, make_run, take_over_probe, task_instance  # isort: skip

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.api.gateway.rules import TABLE
from airflow_remote_provider.definitions.grants import GrantKind
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from testkit.attacker import Answer, Attacker, allow
from testkit.central import ServedCentral
from testkit.fixtures import POSTGRES

NOW = "2026-11-29T12:00:00Z"
ALIAS = {"type": "AssetAlias", "name": "alias"}


@pytest.fixture(scope="module", params=["sqlite", POSTGRES])
def served(
    request: pytest.FixtureRequest, new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedCentral]:
    with configure_airflow(new_database(request.param), tmp_path_factory.mktemp("logs")):
        make_run()
        with ServedCentral(compat.execution_api_app) as central:
            yield central


@pytest.fixture
def probe(served: ServedCentral) -> Attacker:
    """A worker that was taken over while it ran `probe`. The task's outlets are the asset `out` and the alias `alias`."""
    return take_over_probe(served)


@pytest.fixture(scope="module")
def trusted(served: ServedCentral) -> Attacker:
    """A worker whose queue has all grants, so that only values can be refused."""
    probe = take_over_probe(served)
    for kind in GrantKind:
        if kind is not GrantKind.CODE_ON_CENTRAL:
            allow(probe.worker.queue, kind, "*")
    return probe


def _say(attacker: Attacker, method: str, path: str, said: object) -> Answer:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return attacker.send_about_job(method, f"execution/{path}", body)


def _state(attacker: Attacker, **said: object) -> Answer:
    return _say(attacker, "PATCH", f"task-instances/{task_instance('probe').id}/state", {"end_date": NOW, **said})


def _count(model: Any) -> int:
    with compat.transaction() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


# Grants


def test_an_alias_among_the_outlets_emits_no_event_for_an_asset_that_is_not_granted(probe: Attacker) -> None:
    from airflow.models.asset import AssetEvent, AssetModel

    before = _count(AssetEvent), _count(AssetModel)
    for key in (
        {"name": "theirs", "uri": "s3://theirs"},
        {"name": "out", "uri": "s3://theirs"},
        {"name": "theirs", "uri": "s3://out"},
    ):
        event = {"source_alias_name": "alias", "dest_asset_key": key, "dest_asset_extra": {}, "extra": {}}
        answer = _state(probe, state="success", task_outlets=[ALIAS], outlet_events=[event])
        assert answer.status == 403 and b"theirs" in answer.body and b"asset_writes" in answer.body
    assert (_count(AssetEvent), _count(AssetModel)) == before
    assert task_instance("probe").state == "running"


def test_an_alias_emits_events_for_assets_that_are_granted(probe: Attacker) -> None:
    from airflow.models.asset import AssetEvent

    allow(probe.worker.queue, GrantKind.ASSET_WRITES, "s3://dynamic/*")
    before = _count(AssetEvent)
    key = {"name": "s3://dynamic/a", "uri": "s3://dynamic/a"}
    event = {"source_alias_name": "alias", "dest_asset_key": key, "dest_asset_extra": {}, "extra": {"rows": 1}}
    assert _state(probe, state="success", task_outlets=[ALIAS], outlet_events=[event]).status == 204
    assert _count(AssetEvent) == before + 1


def test_a_grant_to_read_assets_does_not_write_them(probe: Attacker) -> None:
    allow(probe.worker.queue, GrantKind.ASSETS, "*")
    for method, path in [("PUT", "value?name=read&key=k"), ("DELETE", "value?name=read&key=k"), ("DELETE", "clear?name=read")]:
        answer = _say(probe, method, f"store/asset/by-name/{path}", {"value": 1})
        assert answer.status == 403 and b"asset_writes" in answer.body
    outlet = {"type": "Asset", "name": "read", "uri": "s3://read"}
    assert _state(probe, state="success", task_outlets=[outlet]).status == 403
    assert _say(probe, "GET", "store/asset/by-name/value?name=read&key=k", b"").status == 404, "reading is granted"


def test_a_grant_to_ask_about_dags_does_not_trigger_or_clear_them(probe: Attacker) -> None:
    allow(probe.worker.queue, GrantKind.DAGS, "*")
    for path in ("dag-runs/other/run-9", f"dag-runs/real/{RUN_ID}/clear"):
        answer = _say(probe, "POST", path, {})
        assert answer.status == 403 and b"trigger_dags" in answer.body
    assert _say(probe, "GET", "dag-runs/count?dag_id=other", b"").status == 200


def test_only_tasks_downstream_are_skipped(probe: Attacker) -> None:
    path = f"task-instances/{task_instance('probe').id}/skip-downstream"
    for tasks in (["beside"], ["after", "beside"], [["beside", -1]], ["probe"], ["nowhere"]):
        answer = _say(probe, "PATCH", path, {"tasks": tasks})
        assert answer.problem == "invalid" and b"is not downstream of 'probe'" in answer.body
    assert [task_instance(name).state for name in ("after", "later", "beside")] == [None, None, None]
    assert _say(probe, "PATCH", path, {"tasks": ["after", ["later", -1]]}).status == 204
    assert [task_instance(name).state for name in ("after", "later", "beside")] == ["skipped", "skipped", None]


# Limits of values


def test_no_retry_delay_keeps_a_run_open_forever(probe: Attacker) -> None:
    path = f"task-instances/{task_instance('probe').id}/state"
    for delay in (b"1e300", b"NaN", b"Infinity", b"1e400", b"-1"):
        body = b'{"state":"up_for_retry","end_date":"%s","retry_delay_seconds":%s}' % (NOW.encode(), delay)
        assert _say(probe, "PATCH", path, body).problem == "invalid", delay
    assert task_instance("probe").state == "running"


def test_an_xcom_that_cannot_be_read_again_is_not_stored(trusted: Attacker) -> None:
    reset_task_instances(trusted.offer.job_id)
    path = f"xcoms/real/{RUN_ID}/probe/key"
    assert _say(trusted, "POST", path, {"fine": 1.5}).status == 201
    for value in (b"NaN", b'{"deep":[Infinity]}', b'"\\ud800"', b'"\\u0000"', b"1e400", b"[" * 500 + b"]" * 500):
        assert _say(trusted, "POST", path, value).problem == "invalid", value
    answer = _say(trusted, "GET", path, b"")
    assert (answer.status, json.loads(answer.body)["value"]) == (200, {"fine": 1.5})


DATES = st.sampled_from(
    [NOW, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-29", "2026-11-29T00:00:00", "2099-12-31T00:00:00Z"]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**31 - 1, 2**31, -1, 2**63, 10**30, 1e308, 0])
TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "\x00",
        "\ud800",
        "a" * 300,
        "a" * 70_000,
        "probe",
        "after",
        "out",
        "alias",
        "s3://out",
        "PT5S",
        "P9Y",
        "P99999999D",
        "__fail__",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | DATES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
STATES = ["success", "failed", "skipped", "removed", "upstream_failed", "deferred", "up_for_retry", "up_for_reschedule"]


def _mostly(fitting: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 7).flatmap(lambda dice: ANYTHING if dice == 0 else fitting)


def _fields(body_type: Any) -> st.SearchStrategy[Any]:
    """Return bodies with the fields of the route's type, each mostly with a fitting value."""
    if body_type is Any or not (isinstance(body_type, type) and issubclass(body_type, msgspec.Struct)):
        return ANYTHING
    known: dict[str, st.SearchStrategy[Any]] = {
        "state": st.sampled_from([*STATES, "awaiting_input", "running"]),
        "pid": NUMBERS,
        "hostname": TEXTS,
        "tasks": st.lists(TEXTS | st.tuples(TEXTS, NUMBERS), max_size=4),
        "task_outlets": st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["Asset", "AssetAlias", "AssetNameRef"]), "name": TEXTS, "uri": TEXTS}
            ),
            max_size=2,
        ),
        "outlet_events": st.lists(
            st.fixed_dictionaries(
                {
                    "dest_asset_key": st.fixed_dictionaries({"name": TEXTS, "uri": TEXTS}),
                    "extra": st.dictionaries(TEXTS, ANYTHING),
                },
                optional={"source_alias_name": st.just("alias"), "partition_key": ANYTHING, "dest_asset_extra": ANYTHING},
            ),
            max_size=2,
        ),
        "retry_delay_seconds": NUMBERS,
        "next_kwargs": st.dictionaries(TEXTS, ANYTHING, max_size=2),
        "conf": st.dictionaries(TEXTS, ANYTHING, max_size=2),
        "params": st.dictionaries(TEXTS, ANYTHING, max_size=2),
        "options": st.lists(TEXTS, min_size=1, max_size=2),
        "chosen_options": st.lists(TEXTS, min_size=1, max_size=2),
        "value": ANYTHING,
        "val": TEXTS,
    }
    names = {*body_type.__struct_fields__, *({"value"} if "expires_at" in body_type.__struct_fields__ else ())}
    names |= {"val"} if "description" in names else {"ti_id"} if {"options", "chosen_options"} & names else set()
    made = {
        name: _mostly(known.get(name, DATES if name.endswith(("_date", "_at", "_after")) else TEXTS | st.none()))
        for name in names
    }
    must = {
        name: made[name] for name in ("state", "end_date", "value", "val", "tasks", "options", "chosen_options") if name in made
    }
    return st.fixed_dictionaries(must, optional={name: made[name] for name in made if name not in must})


def _path(pattern: str) -> str:
    ti = str(task_instance("probe").id)
    for name, value in [
        *(("{task_instance_id}", ti), ("{dag_id}", "real"), ("{task_id}", "probe"), ("{variable_key:path}", "v")),
        *(("{key:path}", "k"), ("{run_id}", RUN_ID if pattern.startswith("xcoms") else "{run_id}"), ("{offset}", "0")),
    ]:
        pattern = pattern.replace(name, value)
    return pattern + ("?name=out&uri=s3://out&key=k" if pattern.startswith("store/asset") else "")


WITH_BODY = [
    (method, path, rule.body) for method, path, rule in TABLE if rule.body is not None and "connection-tests" not in path
]


@pytest.mark.parametrize(("method", "pattern", "body_type"), WITH_BODY, ids=[f"{method} {path}" for method, path, _ in WITH_BODY])
def test_no_body_causes_an_internal_error(trusted: Attacker, method: str, pattern: str, body_type: Any) -> None:
    reset_task_instances(trusted.offer.job_id)
    path, ti = _path(pattern), str(task_instance("probe").id)

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(_fields(body_type), st.uuids())
    def check(said: Any, run: object) -> None:
        reset_task_instances(trusted.offer.job_id)
        if isinstance(said, dict) and "ti_id" in said:
            said["ti_id"] = ti
        answer = _say(trusted, method, path.replace("{run_id}", str(run)), said)
        assert answer.status < 500, (answer, answer.body[:300])

    check()


PARAMETERS = {
    "task-instances/count": ["map_index", "task_ids", "task_group_id", "logical_dates", "run_ids", "states"],
    "task-instances/states": ["map_index", "task_ids", "task_group_id", "logical_dates", "run_ids"],
    "task-instances/previous/real/probe": ["logical_date", "map_index", "state"],
    "dag-runs/count": ["logical_dates", "run_ids", "states"],
    "dag-runs/previous": ["logical_date", "state"],
    f"xcoms/real/{RUN_ID}/probe/k": ["map_index", "offset", "include_prior_dates"],
    f"xcoms/real/{RUN_ID}/probe/k/slice": ["start", "stop", "step", "include_prior_dates"],
    "asset-events/by-asset": ["name", "uri", "after", "before", "ascending", "limit"],
    "variables/keys": ["prefix", "limit", "offset"],
}
WORDS = st.sampled_from(
    ["", "\x00", "x", "success", "running", "null", "true", "probe", NOW, "9999-12-31T23:59:59-14:00", "a" * 3000]
)


@pytest.mark.parametrize("path", PARAMETERS)
def test_no_parameter_causes_an_internal_error(trusted: Attacker, path: str) -> None:
    reset_task_instances(trusted.offer.job_id)
    assert _say(trusted, "POST", f"xcoms/real/{RUN_ID}/probe/k", [1, 2, 3]).status == 201
    given_once = {"include_prior_dates", "name", "uri", "prefix"}

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.tuples(st.sampled_from(PARAMETERS[path]), NUMBERS.map(str) | WORDS), max_size=4))
    def check(pairs: list[tuple[str, str]]) -> None:
        query = "dag_id=real&" + "&".join(f"{name}={quote(value)}" for name, value in pairs if name not in given_once)
        query += "".join(f"&{name}={quote(value)}" for name, value in dict(pairs).items() if name in given_once)
        answer = _say(trusted, "GET", f"{path}?{query}", b"")
        assert answer.status < 500, (answer, answer.body[:300], query)

    check()
