"""Airflow's Execution API: its application, its tokens, and the differences between its versions."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from airflow_remote_provider.compat.definitions import dag_bag


def execution_token_generator() -> Any:
    """Return the generator of the short-lived tokens with which the gateway calls the Execution API."""
    from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args
    from airflow.configuration import conf

    return JWTGenerator(
        valid_for=60,
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience")[0],
        issuer=conf.get("api_auth", "jwt_issuer", fallback=None),
        **get_signing_args(make_secret_key_if_needed=False),
    )


@cache
def has_callback_start() -> bool:
    """Return whether the supervisor of a callback starts it at the Execution API (`callbacks/{callback_id}/run`, since 3.4)."""
    return find_spec("airflow.api_fastapi.execution_api.routes.callbacks") is not None


@cache
def _fields_of_states() -> frozenset[str]:
    from airflow.api_fastapi.execution_api.datamodels import taskinstance as models

    payloads = [getattr(models, name) for name in dir(models) if name.endswith("StatePayload")]
    return frozenset(field for payload in payloads for field in payload.model_fields)


def state_for_this_airflow(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a `state` call without empty fields that this Airflow does not know.

    A newer Task SDK sends its new fields with each state. Airflow refuses a field that it does not know, also an empty one.
    """
    return {name: value for name, value in body.items() if value is not None or name in _fields_of_states()}


def refuses_token(status: int, body: bytes) -> bool:
    """Return whether this response of the Execution API refuses the token itself, not a right of the token."""
    return status == 403 and body.startswith(b'{"detail":"Invalid auth token')


def execution_api_app() -> Any:
    """Return an own instance of the Execution API application; the caller enters its lifespan."""
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app

    app = create_task_execution_api_app()
    app.state.dag_bag = dag_bag()
    return app


def airflow_version() -> str:
    """Return the version of this central's Airflow."""
    from airflow import __version__

    return str(__version__)
