"""The query parameters of each route of the Execution API. Any other parameter is refused.

Tests compare this table with the parameters that the installed Airflow reads (`test_rules.py`) and the installed Task SDK sends
(`test_sdk_calls.py`); Airflow ignores some of them.
"""

from __future__ import annotations

_XCOM = "xcoms/{dag_id}/{run_id}/{task_id}/{key:path}"
_EVENTS = "after ascending before extra limit name partition_key partition_key_regexp_pattern"
_COUNTED = "dag_id logical_dates map_index run_ids task_group_id task_ids"

_NAMES = {
    ("GET", "task-reschedules/{task_instance_id}/start_date"): "try_number",
    ("GET", "variables/keys"): "limit offset prefix",
    ("GET", f"{_XCOM}/item/{{offset}}"): "previous_iteration",
    ("GET", f"{_XCOM}/slice"): "include_prior_dates previous_iteration start step stop",
    ("HEAD", _XCOM): "map_index previous_iteration",
    ("GET", _XCOM): "include_prior_dates map_index offset previous_iteration",
    ("POST", _XCOM): "dag_result map_index mapped_length",
    ("DELETE", _XCOM): "map_index",
    ("GET", "dag-runs/count"): "dag_id logical_dates run_ids states",
    ("GET", "dag-runs/previous"): "dag_id logical_date state",
    ("GET", "dag-runs/{dag_id}/previous"): "logical_date state",
    ("GET", "task-instances/count"): f"{_COUNTED} states",
    ("GET", "task-instances/states"): _COUNTED,
    ("GET", "task-instances/breadcrumbs"): "dag_id run_id",
    ("GET", "task-instances/previous/{dag_id}/{task_id}"): "logical_date map_index state",
    ("GET", "assets/by-name"): "name",
    ("GET", "assets/by-uri"): "uri",
    ("GET", "assets/by-alias"): "alias_name",
    ("GET", "asset-events/by-asset"): f"{_EVENTS} uri",
    ("GET", "asset-events/by-asset-alias"): _EVENTS,
    ("GET", "store/asset/by-name/value"): "key name",
    ("PUT", "store/asset/by-name/value"): "key name",
    ("DELETE", "store/asset/by-name/value"): "key name",
    ("DELETE", "store/asset/by-name/clear"): "name",
    ("GET", "store/asset/by-uri/value"): "key uri",
    ("PUT", "store/asset/by-uri/value"): "key uri",
    ("DELETE", "store/asset/by-uri/value"): "key uri",
    ("DELETE", "store/asset/by-uri/clear"): "uri",
}


def parameters_of(method: str, path: str) -> frozenset[str]:
    """Return the query parameters of a route; *path* is its pattern, as in :data:`.rules.TABLE`."""
    return frozenset(_NAMES.get((method, path), "").split())
