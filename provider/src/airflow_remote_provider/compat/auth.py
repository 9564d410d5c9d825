"""Airflow's users and what its auth manager lets them do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session


class NoSuchUser(Exception):
    """Airflow does not take this for a user's token."""


async def user_of(token: str) -> Any:
    """Return the user whose token for Airflow's public API this is; raises NoSuchUser."""
    from airflow.api_fastapi.app import get_auth_manager
    from jwt import InvalidTokenError

    try:
        return await get_auth_manager().get_user_from_token(token)
    except InvalidTokenError as error:
        raise NoSuchUser(str(error)) from None


def user_of_request() -> Callable[..., Any]:
    """Return the FastAPI dependency that says whose request this is, by bearer token or session cookie; 401 if nobody's."""
    from airflow.api_fastapi.core_api.security import get_user

    return get_user  # type: ignore[no-any-return]


def base_url() -> str:
    """Return `[api] base_url`: where browsers reach the API server; empty if that is not set."""
    from airflow.configuration import conf

    return conf.get("api", "base_url", fallback="") or ""


def may_see_workers(user: Any) -> bool:
    """Ask the auth manager. Auth managers know no workers: who may see what Airflow's own processes do may see ours."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView

    return bool(get_auth_manager().is_authorized_view(access_view=AccessView.JOBS, user=user))


def may_manage_workers(user: Any, team: str | None = None) -> bool:
    """Ask the auth manager whether this user may create connections, of the team: that decides what tasks reach."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails

    details = None if team is None else ConnectionDetails(team_name=team)
    return bool(get_auth_manager().is_authorized_connection(method="POST", details=details, user=user))


def may_end_tasks(user: Any, dag_id: str) -> bool:
    """Ask the auth manager whether this user may change the task instances of the Dag, as marking one failed does."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails

    details = DagDetails(id=dag_id)
    return bool(
        get_auth_manager().is_authorized_dag(
            method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE, details=details, user=user
        )
    )


def readable_dags(session: Session, user: Any) -> frozenset[str] | None:
    """Return the Dags that this user may read; None if that is all there are."""
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
