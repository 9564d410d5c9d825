"""Airflow's users and what its auth manager lets them do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session


class NoSuchUser(Exception):
    """Airflow does not accept the token as that of a user."""


async def user_of(token: str) -> Any:
    """Return the user to whom this token for Airflow's public API belongs.

    Raises:
        NoSuchUser: Airflow does not accept the token.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from jwt import InvalidTokenError

    try:
        return await get_auth_manager().get_user_from_token(token)
    except InvalidTokenError as error:
        raise NoSuchUser(str(error)) from None


def user_of_request() -> Callable[..., Any]:
    """Return the FastAPI dependency that identifies the user of a request, by bearer token or session cookie, or answers 401."""
    from airflow.api_fastapi.core_api.security import get_user

    return get_user  # type: ignore[no-any-return]


def base_url() -> str:
    """Return `[api] base_url`, the address of the API server for browsers; empty if it is not set."""
    from airflow.configuration import conf

    return conf.get("api", "base_url", fallback="") or ""


def may_see_workers(user: Any) -> bool:
    """Return whether the auth manager lets this user see workers.

    Auth managers don't know workers, so the right to see the jobs of Airflow's own processes decides.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView

    return bool(get_auth_manager().is_authorized_view(access_view=AccessView.JOBS, user=user))


def may_manage_workers(user: Any, team: str | None = None) -> bool:
    """Return whether the auth manager lets this user manage workers, of *team*.

    The right to create connections of the team decides: it, too, controls what tasks can reach.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails

    details = None if team is None else ConnectionDetails(team_name=team)
    return bool(get_auth_manager().is_authorized_connection(method="POST", details=details, user=user))


def may_end_tasks(user: Any, dag_id: str) -> bool:
    """Return whether the auth manager lets this user change task instances of the Dag, as marking one failed does."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails

    details = DagDetails(id=dag_id)
    return bool(
        get_auth_manager().is_authorized_dag(
            method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE, details=details, user=user
        )
    )


def readable_dags(session: Session, user: Any) -> frozenset[str] | None:
    """Return the Dags that this user can read; None if these are all Dags."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.models.dag import DagModel

    readable = frozenset(get_auth_manager().get_authorized_dag_ids(user=user, session=session))
    known = session.scalar(select(func.count()).select_from(DagModel))
    return None if readable and len(readable) == known else readable


def readable_teams(session: Session, user: Any) -> frozenset[str] | None:
    """Return the teams that this user belongs to; None where there are no teams."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import TeamDetails
    from airflow.configuration import conf
    from airflow.models.team import Team

    if not conf.getboolean("core", "multi_team"):
        return None
    manager = get_auth_manager()
    names = Team.get_all_team_names(session=session)
    return frozenset(
        name for name in names if manager.is_authorized_team(method="GET", details=TeamDetails(name=name), user=user)
    )
