"""The user that calls, with their permissions. Routes read and change the ledger only through :class:`Caller`."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.ledger.views.bundles import teams_of
from airflow_remote_provider.ledger.views.jobs import show_job
from airflow_remote_provider.ledger.views.queue_teams import concerned_teams
from airflow_remote_provider.ledger.views.releases import teams_with_releases
from airflow_remote_provider.ledger.views.runtimes import teams_with_runtimes
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope

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


class Ledger(Protocol):
    """Runs calls of the ledger for routes; see :class:`..pool.LedgerPool`."""

    async def call(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T: ...
    async def blocking(self, work: Callable[[], T]) -> T: ...


@dataclass(frozen=True)
class Caller(ABC):
    """A user, for one request."""

    name: str
    """As the audit names them."""
    pool: Ledger

    async def read(self, view: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Return `view(session, *args, scope=…, **kwargs)`.

        Raises:
            Forbidden: the user may not see workers and jobs.
        """

        def scoped(session: Session) -> T:
            self._require_read()
            return view(session, *args, scope=self._scope(session), **kwargs)

        return await self.pool.call(scoped)

    async def act(self, verb: Callable[..., T], *args: Any, team: Callable[[Session, Scope], str | None], **kwargs: Any) -> T:
        """Return `verb(session, *args, by=…, **kwargs)`; *team* returns the team of the changed object (None: no team).

        Raises:
            Forbidden: the user may not manage workers, or not those of this team.
        """

        def allowed(session: Session) -> T:
            self._require_manage(None)  # first: only managers may learn what exists
            self._require_manage(team(session, self._scope(session)))
            return verb(session, *args, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def act_on_queue(self, verb: Callable[..., T], queue: str, *args: Any, **kwargs: Any) -> T:
        """Return `verb(session, queue, *args, by=…, **kwargs)`. A change of a queue affects every team that has it.

        Raises:
            NotFound: none of the user's teams has the queue.
            Forbidden: the user may not manage workers, or not those of each team that has the queue.
        """

        def allowed(session: Session) -> T:
            self._require_manage(None)
            scope = self._scope(session)
            for team in concerned_teams(session, queue, scope=scope):
                if not scope.includes_team(team):  # the text does not name the team, which this user may not see
                    raise Forbidden(
                        f"the queue {queue!r} also has workers or jobs of teams that the user {self.name!r} does not belong to; "
                        "a change for all of them requires the right to manage workers of each team"
                    )
                self._require_manage(team)
            return verb(session, queue, *args, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def act_on_bundle(self, verb: Callable[..., T], bundle: str, *args: Any, **kwargs: Any) -> T:
        """Return `verb(session, bundle, *args, by=…, **kwargs)`.

        Raises:
            NotFound: there is no such Dag bundle, or it belongs to other teams only.
            Forbidden: the user may not manage workers, or not those of each team that has the bundle.
        """

        def allowed(session: Session) -> T:
            self._require_manage(None)
            for team in sorted(teams_of(session, bundle, scope=self._scope(session))):
                self._require_manage(team)
            return verb(session, bundle, *args, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def act_on_runtime(self, verb: Callable[..., T], runtime: str, *args: Any, **kwargs: Any) -> T:
        """Return `verb(session, runtime, *args, by=…, **kwargs)`. A change affects every team whose workers take runtimes.

        Raises:
            Forbidden: the user may not manage workers, or not those of each of these teams.
        """

        def allowed(session: Session) -> T:
            self._require_teams(session, teams_with_runtimes, "runtimes")
            return verb(session, runtime, *args, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def act_on_releases(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Return `verb(session, *args, by=…, **kwargs)`. A change affects every team whose workers take releases.

        Raises:
            Forbidden: the user may not manage workers, or not those of each of these teams.
        """

        def allowed(session: Session) -> T:
            self._require_teams(session, teams_with_releases, "releases")
            return verb(session, *args, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    def _require_teams(self, session: Session, teams: Callable[[Session], list[str | None]], what: str) -> None:
        """Raises: Forbidden: the user may not manage workers of each of these teams."""
        self._require_manage(None)
        scope = self._scope(session)
        for team in teams(session):
            if not scope.includes_team(team):  # the text does not name the team, which this user may not see
                raise Forbidden(
                    f"workers of teams that the user {self.name!r} does not belong to also take {what} from central; "
                    "a change for all of them requires the right to manage workers of each team"
                )
            self._require_manage(team)

    async def act_on_job(self, verb: Callable[..., T], job_id: str, **kwargs: Any) -> T:
        """Return `verb(session, job_id, by=…, **kwargs)`.

        Raises:
            NotFound: there is no such job, or the user may not see it.
            Forbidden: the user may not change its Dag's task instances; for a job without a Dag, may not manage workers.
        """

        def allowed(session: Session) -> T:
            self._require_read()
            job = show_job(session, job_id, scope=self._scope(session))
            if not job.dag_id:
                self._require_manage(None)
            else:
                self._require_end_jobs(job.dag_id)
            return verb(session, job_id, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def manage(self, view: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As :meth:`read`, for views that require the right to manage workers."""

        def scoped(session: Session) -> T:
            self._require_manage(None)
            return view(session, *args, scope=self._scope(session), **kwargs)

        return await self.pool.call(scoped)

    async def require_read(self) -> None:
        """Raises: Forbidden."""
        await self.pool.blocking(self._require_read)

    async def require_manage(self) -> None:
        """Raises: Forbidden."""
        await self.pool.blocking(lambda: self._require_manage(None))

    @abstractmethod
    async def may_manage(self) -> bool: ...

    @abstractmethod
    def _scope(self, session: Session) -> Scope: ...

    @abstractmethod
    def _require_read(self) -> None: ...

    @abstractmethod
    def _require_manage(self, team: str | None) -> None: ...

    @abstractmethod
    def _require_end_jobs(self, dag_id: str) -> None:
        """Raises: Forbidden: this user may not end jobs of the Dag."""


@dataclass(frozen=True)
class AirflowUser(Caller):
    """A user of Airflow. The auth manager decides what they may do."""

    user: Any
    scopes: Scopes

    async def may_manage(self) -> bool:
        return await self.pool.blocking(lambda: compat.may_manage_workers(self.user))

    def _scope(self, session: Session) -> Scope:
        return self.scopes.get(session, self.user)

    def _require_read(self) -> None:
        if not compat.may_see_workers(self.user):
            raise Forbidden(f"the user {self.name!r} may not see workers; this requires the right to read jobs")

    def _require_manage(self, team: str | None) -> None:
        if not compat.may_manage_workers(self.user, team):
            whose = f" of the team {team!r}" if team is not None else ""
            text = f"the user {self.name!r} may not manage workers{whose}; this requires the right to create connections{whose}"
            raise Forbidden(text)

    def _require_end_jobs(self, dag_id: str) -> None:
        if not compat.may_end_tasks(self.user, dag_id):
            raise Forbidden(
                f"the user {self.name!r} may not end jobs of the Dag {dag_id!r}; "
                "this requires the right to edit its task instances"
            )


class LocalUser(Caller):
    """A user of the operating system who has access to Airflow's database. They may do everything: the database lets them."""

    async def may_manage(self) -> bool:
        return True

    def _scope(self, session: Session) -> Scope:
        return EVERYTHING

    def _require_read(self) -> None:
        return None

    def _require_manage(self, team: str | None) -> None:
        return None

    def _require_end_jobs(self, dag_id: str) -> None:
        return None


async def get_caller(request: Request) -> Caller:
    """Return the caller that the app has identified: by :func:`.authentication.authenticate`, or :class:`.app.LocalApi`."""
    caller: Caller = request.state.remote_caller
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]
