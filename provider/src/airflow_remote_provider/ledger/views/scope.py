"""The part of the ledger that a user is allowed to see."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, or_, true


@dataclass(frozen=True)
class Scope:
    """The teams and Dags that a user sees; None: all."""

    teams: Collection[str] | None = None
    """Rows without a team are visible to every user."""
    dags: Collection[str] | None = None

    def includes_team(self, team: str | None) -> bool:
        return self.teams is None or team is None or team in self.teams

    def sees_team(self, column: Any) -> ColumnElement[bool]:
        return true() if self.teams is None else or_(column.is_(None), column.in_(sorted(self.teams)))

    def sees_dag(self, column: Any) -> ColumnElement[bool]:
        return true() if self.dags is None else column.in_(sorted(self.dags))


EVERYTHING = Scope()
"""For the command line on central, which has access to the whole database."""
