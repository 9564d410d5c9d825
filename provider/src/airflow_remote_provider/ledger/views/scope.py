"""What of the ledger one person may see."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, or_, true


@dataclass(frozen=True)
class Scope:
    """None: all of them."""

    teams: Collection[str] | None = None
    """Besides these, what is of no team is everybody's."""
    dags: Collection[str] | None = None

    def includes_team(self, team: str | None) -> bool:
        return self.teams is None or team is None or team in self.teams

    def sees_team(self, column: Any) -> ColumnElement[bool]:
        return true() if self.teams is None else or_(column.is_(None), column.in_(sorted(self.teams)))

    def sees_dag(self, column: Any) -> ColumnElement[bool]:
        return true() if self.dags is None else column.in_(sorted(self.dags))


EVERYTHING = Scope()
"""Of who has the database itself: the command line."""
