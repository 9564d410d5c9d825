"""Whose a queue is: the teams that have workers or open jobs in it. What is decided about a queue holds for all of them."""

from __future__ import annotations

from collections.abc import Collection

from airflow_remote_protocol.states import JobState
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.errors import Unknown
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.queue_policy import PolicyRow
from airflow_remote_provider.ledger.queue_policy import list_policies as list_all_policies
from airflow_remote_provider.ledger.queues import ALL_QUEUES
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import Job, Worker

Teams = Collection[str | None]
"""None: what is of no team."""


def list_policies(session: Session, *, scope: Scope = EVERYTHING) -> list[PolicyRow]:
    """Return the policies of the queues that this person's teams have, and that of all queues: it holds for theirs, too."""
    rows = list_all_policies(session)
    if scope.teams is None:
        return rows
    teams_of = _teams_by_queue(session)
    return [row for row in rows if row.queue == ALL_QUEUES or _sees(scope, teams_of.get(row.queue, ()))]


def concerned(session: Session, queue: str, *, scope: Scope = EVERYTHING) -> Teams:
    """Return the teams that a decision about *queue* concerns: all that have it; about all queues: every team.

    Raises:
        Unknown: none of this person's teams has it.
    """
    if scope.teams is None:
        return ()
    teams_of = _teams_by_queue(session)
    if queue == ALL_QUEUES:
        return {team for teams in teams_of.values() for team in teams}
    teams = teams_of.get(queue, set())
    if not _sees(scope, teams):
        raise Unknown(
            f"no team of yours has workers or jobs of the queue {presentable(queue, longest=100)!r}; "
            "let a worker serve it first, or ask someone who manages all teams"
        )
    return teams


def _sees(scope: Scope, teams: Teams) -> bool:
    return any(scope.includes_team(team) for team in teams)


def _teams_by_queue(session: Session) -> dict[str, set[str | None]]:
    """Two statements. Workers of the same team mostly have the same queues, and teams are few."""
    found: dict[str, set[str | None]] = {}
    open_states = [state.value for state in JobState if not state.is_ended]
    for queue, team in session.execute(select(Job.queue, Job.team).where(Job.state.in_(open_states)).distinct()):
        found.setdefault(queue, set()).add(team)
    workers = select(Worker.queues, Worker.team).where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
    for queues, team in session.execute(workers):
        for queue in queues:
            found.setdefault(queue, set()).add(team)
    return found
