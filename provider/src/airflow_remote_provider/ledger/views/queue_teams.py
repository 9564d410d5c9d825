"""The teams of a queue: those with workers or open jobs in it. The settings of a queue apply to all of them."""

from __future__ import annotations

from collections.abc import Collection

from airflow_remote_protocol.states import JobState
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.queue_policy import PolicyRow
from airflow_remote_provider.ledger.queue_policy import list_policies as list_all_policies
from airflow_remote_provider.ledger.queues import ALL_QUEUES
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import Job, Worker

Teams = Collection[str | None]
"""None: no team."""


def list_policies(session: Session, *, scope: Scope = EVERYTHING) -> list[PolicyRow]:
    """Return the policies of the queues of the user's teams, and the policy of all queues, which applies to them, too."""
    rows = list_all_policies(session)
    if scope.teams is None:
        return rows
    teams_of = _teams_by_queue(session)
    return [row for row in rows if row.queue == ALL_QUEUES or _sees(scope, teams_of.get(row.queue, ()))]


def concerned_teams(session: Session, queue: str, *, scope: Scope = EVERYTHING) -> Teams:
    """Return the teams that a setting of *queue* affects: the teams of the queue, or every team for all queues.

    Raises:
        NotFound: the queue belongs to none of the user's teams.
    """
    if scope.teams is None:
        return ()
    teams_of = _teams_by_queue(session)
    if queue == ALL_QUEUES:
        return {team for teams in teams_of.values() for team in teams}
    teams = teams_of.get(queue, set())
    if not _sees(scope, teams):
        raise NotFound(
            f"none of your teams has workers or jobs of the queue {presentable(queue, longest=100)!r}; "
            "give the queue to a worker first, or ask a user who manages all teams"
        )
    return teams


def _sees(scope: Scope, teams: Teams) -> bool:
    return any(scope.includes_team(team) for team in teams)


def _teams_by_queue(session: Session) -> dict[str, set[str | None]]:
    """Return the teams of each queue. Two statements: teams are few, and workers of one team mostly have the same queues."""
    found: dict[str, set[str | None]] = {}
    open_states = [state.value for state in JobState if not state.is_ended]
    for job in session.execute(select(Job.queue, Job.team).where(Job.state.in_(open_states)).distinct()):
        found.setdefault(job.queue, set()).add(job.team)
    workers = select(Worker.queues, Worker.team).where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
    for worker in session.execute(workers):
        for queue in worker.queues:
            found.setdefault(queue, set()).add(worker.team)
    return found
