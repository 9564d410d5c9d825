"""The user that calls, with their permissions. Routes read and change the ledger only through :class:`Caller`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, HTTPException, Request
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.ui_v1.origins import may_act
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.views.jobs import show_job
from airflow_remote_provider.ledger.views.queue_teams import concerned_teams
from airflow_remote_provider.ledger.views.scope import Scope

T = TypeVar("T")

SCOPE_KEPT_S = 10.0
"""How long a user's scope is cached: reading it asks for every Dag, and an open page makes calls every few seconds."""
MOST_SCOPES = 1000


class Forbidden(Exception):
    """Airflow's auth manager denies this user an action; the text names the action and the required right."""


class Scopes:
    """A cache of what each user may see. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Scope]] = {}
        self._lock = threading.Lock()

    def get(self, session: Session, user: Any) -> Scope:
        now, key = time.monotonic(), str(user.get_id())
        with self._lock:
            at, scope = self._known.get(key, (now - SCOPE_KEPT_S, None))
        if scope is not None and now - at < SCOPE_KEPT_S:
            return scope
        scope = Scope(teams=compat.readable_teams(session, user), dags=compat.readable_dags(session, user))
        with self._lock:
            if len(self._known) >= MOST_SCOPES:
                self._known.clear()
            self._known[key] = (now, scope)
        return scope


@dataclass(frozen=True)
class Caller:
    """A user of Airflow, for one request."""

    user: Any
    pool: LedgerPool
    scopes: Scopes

    @property
    def name(self) -> str:
        return str(self.user.get_name())

    async def read(self, view: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Return `view(session, *args, scope=…, **kwargs)`.

        Raises:
            Forbidden: the user may not see workers and jobs.
        """

        def scoped(session: Session) -> T:
            self._require_read()
            return view(session, *args, scope=self.scopes.get(session, self.user), **kwargs)

        return await self.pool.call(scoped)

    async def act(self, verb: Callable[..., T], *args: Any, team: Callable[[Session, Scope], str | None], **kwargs: Any) -> T:
        """Return `verb(session, *args, by=…, **kwargs)`; *team* returns the team of the changed object (None: no team).

        Raises:
            Forbidden: the user may not manage workers, or not those of this team.
        """

        def allowed(session: Session) -> T:
            self._require_manage(None)  # first: only managers may learn what exists
            self._require_manage(team(session, self.scopes.get(session, self.user)))
            return verb(session, *args, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def act_on_queue(self, verb: Callable[..., T], queue: str, *args: Any, **kwargs: Any) -> T:
        """Return `verb(session, queue, *args, by=…, **kwargs)`. A change of a queue affects every team that has it.

        Raises:
            Unknown: none of the user's teams has the queue.
            Forbidden: the user may not manage workers, or not those of each team that has the queue.
        """

        def allowed(session: Session) -> T:
            self._require_manage(None)
            scope = self.scopes.get(session, self.user)
            for team in concerned_teams(session, queue, scope=scope):
                if not scope.includes_team(team):  # the text does not name the team, which this user may not see
                    raise Forbidden(
                        f"the queue {queue!r} also has workers or jobs of teams that the user {self.name!r} does not belong to; "
                        "a change for all of them requires the right to manage workers of each team"
                    )
                self._require_manage(team)
            return verb(session, queue, *args, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def act_on_job(self, verb: Callable[..., T], job_id: str, **kwargs: Any) -> T:
        """Return `verb(session, job_id, by=…, **kwargs)`.

        Raises:
            Unknown: there is no such job, or the user may not see it.
            Forbidden: the user may not change its Dag's task instances; for a job without a Dag, may not manage workers.
        """

        def allowed(session: Session) -> T:
            self._require_read()
            job = show_job(session, job_id, scope=self.scopes.get(session, self.user))
            if not job.dag_id:
                self._require_manage(None)
            elif not compat.may_end_tasks(self.user, job.dag_id):
                raise Forbidden(
                    f"the user {self.name!r} may not end jobs of the Dag {job.dag_id!r}; "
                    "this requires the right to edit its task instances"
                )
            return verb(session, job_id, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def manage(self, view: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As :meth:`read`, for views that require the right to manage workers."""

        def scoped(session: Session) -> T:
            self._require_manage(None)
            return view(session, *args, scope=self.scopes.get(session, self.user), **kwargs)

        return await self.pool.call(scoped)

    async def may_manage(self) -> bool:
        return await self.pool.blocking(lambda: compat.may_manage_workers(self.user))

    async def require_read(self) -> None:
        """Raises: Forbidden."""
        await self.pool.blocking(self._require_read)

    async def require_manage(self) -> None:
        """Raises: Forbidden."""
        await self.pool.blocking(lambda: self._require_manage(None))

    def _require_read(self) -> None:
        if not compat.may_see_workers(self.user):
            raise Forbidden(f"the user {self.name!r} may not see workers; this requires the right to read jobs")

    def _require_manage(self, team: str | None) -> None:
        if not compat.may_manage_workers(self.user, team):
            whose = f" of the team {team!r}" if team is not None else ""
            text = f"the user {self.name!r} may not manage workers{whose}; this requires the right to create connections{whose}"
            raise Forbidden(text)


async def _get_caller(request: Request, user: Annotated[Any, Depends(compat.user_of_request())]) -> Caller:
    if "\0" in request.url.path or b"%00" in request.scope["query_string"]:
        raise HTTPException(422, "the URL contains a zero byte, which no name has")  # Postgres refuses it in a text
    if not may_act(request):
        raise Forbidden(
            "this request is authenticated by Airflow's cookie, and its origin "
            f"({presentable(request.headers.get('origin', 'unknown'), longest=100)}) is not this site; "
            "only pages of Airflow itself may make changes with the cookie. Programs: send a token, Authorization: Bearer …. "
            "Behind a proxy that changes the Host header: set [api] base_url to the URL that browsers use"
        )
    return Caller(user, request.app.state.pool, request.app.state.scopes)


CallerDep = Annotated[Caller, Depends(_get_caller)]
