"""Who calls, what of the ledger they may see and do, and the one way in which routes read and act for them."""

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
from airflow_remote_provider.ledger.views.jobs import show_job
from airflow_remote_provider.ledger.views.queue_teams import concerned
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope

T = TypeVar("T")

SCOPE_KEPT_S = 10.0
"""How long what a user may see is taken as known: reading it asks for every Dag, and an open page asks every few seconds."""
MOST_SCOPES = 1000


class Forbidden(Exception):
    """Airflow's auth manager says that this user may not; the text says what, and which right that takes."""


class Scopes:
    """What each user may see, for a moment. May be asked from several threads."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Scope]] = {}
        self._lock = threading.Lock()

    def of(self, session: Session, user: Any) -> Scope:
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
    """A user, for the length of one request."""

    name: str
    """As the audit names them."""
    pool: Ledger

    async def read(self, view: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Return `view(session, *args, scope=…, **kwargs)`.

        Raises:
            Forbidden: this user may not see workers and jobs at all.
        """

        def scoped(session: Session) -> T:
            self._insist_on_seeing()
            return view(session, *args, scope=self._scope(session), **kwargs)

        return await self.pool.call(scoped)

    async def act(self, verb: Callable[..., T], *args: Any, team: Callable[[Session, Scope], str | None], **kwargs: Any) -> T:
        """Return `verb(session, *args, by=…, **kwargs)`; *team* says whose thing it is done to (None: nobody's).

        Raises:
            Forbidden: this user may not manage workers, or not this team's.
        """

        def allowed(session: Session) -> T:
            self._insist_on_managing(None)  # before anything is looked up: what exists is not for everybody
            self._insist_on_managing(team(session, self._scope(session)))
            return verb(session, *args, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def act_on_queue(self, verb: Callable[..., T], queue: str, *args: Any, **kwargs: Any) -> T:
        """Return `verb(session, queue, *args, by=…, **kwargs)`: what is decided about a queue holds for every team that has it.

        Raises:
            Unknown: none of this user's teams has the queue.
            Forbidden: this user may not manage workers, or not those of each team that has it.
        """

        def allowed(session: Session) -> T:
            self._insist_on_managing(None)
            scope = self._scope(session)
            for team in concerned(session, queue, scope=scope):
                if not scope.includes_team(team):  # not named: whose it is, is not for everybody
                    raise Forbidden(
                        f"the queue {queue!r} also has workers or jobs of teams that the user {self.name!r} does not belong to; "
                        "what holds for all of them takes the right to manage workers of each"
                    )
                self._insist_on_managing(team)
            return verb(session, queue, *args, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def act_on_job(self, verb: Callable[..., T], job_id: str, **kwargs: Any) -> T:
        """Return `verb(session, job_id, by=…, **kwargs)`.

        Raises:
            Unknown: there is no such job, or none that this user may see.
            Forbidden: he may not change its Dag's task instances; of a job of no Dag, he may not manage workers.
        """

        def allowed(session: Session) -> T:
            self._insist_on_seeing()
            job = show_job(session, job_id, scope=self._scope(session))
            if not job.dag_id:
                self._insist_on_managing(None)
            else:
                self._insist_on_ending(job.dag_id)
            return verb(session, job_id, by=self.name, **kwargs)

        return await self.pool.call(allowed)

    async def manage(self, view: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As :meth:`read`, of what only those may see who may manage workers."""

        def scoped(session: Session) -> T:
            self._insist_on_managing(None)
            return view(session, *args, scope=self._scope(session), **kwargs)

        return await self.pool.call(scoped)

    async def insist_on_seeing(self) -> None:
        """Raises: Forbidden."""
        await self.pool.blocking(self._insist_on_seeing)

    async def insist_on_managing(self) -> None:
        """Raises: Forbidden."""
        await self.pool.blocking(lambda: self._insist_on_managing(None))

    @abstractmethod
    async def may_manage(self) -> bool: ...

    @abstractmethod
    def _scope(self, session: Session) -> Scope: ...

    @abstractmethod
    def _insist_on_seeing(self) -> None: ...

    @abstractmethod
    def _insist_on_managing(self, team: str | None) -> None: ...

    @abstractmethod
    def _insist_on_ending(self, dag_id: str) -> None:
        """Raises: Forbidden: this user may not end jobs of the Dag."""


@dataclass(frozen=True)
class AirflowUser(Caller):
    """A user of Airflow's. The auth manager decides what they may do."""

    user: Any
    scopes: Scopes

    async def may_manage(self) -> bool:
        return await self.pool.blocking(lambda: compat.may_manage_workers(self.user))

    def _scope(self, session: Session) -> Scope:
        return self.scopes.of(session, self.user)

    def _insist_on_seeing(self) -> None:
        if not compat.may_see_workers(self.user):
            raise Forbidden(f"the user {self.name!r} may not see workers; that takes the right to read jobs")

    def _insist_on_managing(self, team: str | None) -> None:
        if not compat.may_manage_workers(self.user, team):
            whose = f" of the team {team!r}" if team is not None else ""
            text = f"the user {self.name!r} may not manage workers{whose}; that takes the right to create connections{whose}"
            raise Forbidden(text)

    def _insist_on_ending(self, dag_id: str) -> None:
        if not compat.may_end_tasks(self.user, dag_id):
            raise Forbidden(
                f"the user {self.name!r} may not end jobs of the Dag {dag_id!r}; that takes the right to edit its task instances"
            )


class LocalUser(Caller):
    """A user of the operating system who has access to Airflow's database. They may do everything: the database lets them."""

    async def may_manage(self) -> bool:
        return True

    def _scope(self, session: Session) -> Scope:
        return EVERYTHING

    def _insist_on_seeing(self) -> None:
        return None

    def _insist_on_managing(self, team: str | None) -> None:
        return None

    def _insist_on_ending(self, dag_id: str) -> None:
        return None


async def caller_of(request: Request) -> Caller:
    """Return the caller whom the app has identified: by :func:`.authentication.authenticate`, or :class:`.app.LocalApi`."""
    caller: Caller = request.state.remote_caller
    return caller


CallerDep = Annotated[Caller, Depends(caller_of)]
