"""Routes, parameters and fields of the installed Airflow's Execution API that have no rule in `api/gateway/rules.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, get_args, get_origin

import msgspec
from airflow.api_fastapi.execution_api.app import create_task_execution_api_app
from airflow_remote_protocol import bounds
from airflow_remote_provider.api.gateway.rules import TABLE, Rule
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

REFUSED = {"task-instances/{task_instance_id}/state": frozenset({"hostname", "pid"})}
"""Fields that intentionally have no rule. Airflow stores them with any state, and its UI calls the host name for logs."""


@cache
def versions() -> Mapping[str, Sequence[APIRoute]]:
    """Return the routes of the installed Airflow by version of the Execution API, the newest first. Making them takes seconds."""
    app = create_task_execution_api_app()
    app._cadwyn_initialize()  # else at its first request
    return {
        version: [route for route in router.routes if isinstance(route, APIRoute)]
        for version, router in app.router.versioned_routers.items()
    }


def uncovered() -> list[str]:
    """Return calls, parameters and fields without a rule, sorted: `GET path`, `GET path ?parameter`, `GET path {field}`."""
    rules = {(method, _plain(path)): rule for method, path, rule in TABLE}
    found: set[str] = set()
    for version, routes in versions().items():
        if version > bounds.NEWEST_API_VERSION:
            found.add(f"version {version}")
        for route in routes if version >= bounds.OLDEST_API_VERSION else ():
            path = route.path.lstrip("/")
            for method in sorted(route.methods):
                call, rule = f"{method} {path}", rules.get((method, _plain(path)))
                if rule is None:
                    found.add(call)
                else:
                    found |= {f"{call} ?{name}" for name in _parameters(route) - rule.query}
                    unnamed = _fields(route) - _known_fields(rule) - REFUSED.get(path, frozenset())
                    found |= {f"{call} {{{name}}}" for name in unnamed}
    return sorted(found)


def _plain(path: str) -> str:
    """Return the pattern of a path without its converters: Airflow 3.4 takes a connection's id with slashes, 3.3 does not."""
    return path.replace(":path}", "}")


def _parameters(route: APIRoute) -> set[str]:
    found: set[str] = set()
    for parameter in get_flat_dependant(route.dependant, skip_repeats=True).query_params:
        model = parameter.field_info.annotation
        found |= _names(model) if isinstance(model, type) and issubclass(model, BaseModel) else {parameter.alias}
    return found


def _fields(route: APIRoute) -> set[str]:
    body = get_flat_dependant(route.dependant, skip_repeats=True).body_params
    return {name for parameter in body for name in _names(parameter.field_info.annotation)}


def _names(annotation: Any) -> set[str]:
    """Return the fields of a model, or of all models in a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {field.alias or name for name, field in annotation.model_fields.items()}
    return {name for part in get_args(annotation) if get_origin(annotation) is not dict for name in _names(part)}


def _known_fields(rule: Rule) -> set[str]:
    body = rule.body
    return set(body.__struct_fields__) if isinstance(body, type) and issubclass(body, msgspec.Struct) else set()


def lines() -> Iterator[str]:
    """Yield the findings as lines for users."""
    missing = uncovered()
    yield from (f"no rule for {line}" for line in missing)
    yield f"{len(missing)} routes, parameters and fields of this Airflow have no rule; central refuses them to workers"
