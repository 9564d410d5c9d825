"""One page of a list: so many rows behind a cursor, in an order that the list knows.

A cursor names the last row that was seen, not a number of rows: what comes or goes meanwhile makes no row appear twice or never.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Integer, Select, String, and_, or_
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.errors import LedgerError

T = TypeVar("T")

MOST_ROWS = 1000


@dataclass(frozen=True)
class Page:
    """What part of a list is wanted."""

    limit: int = 100
    """1 to 1,000."""
    after: str = ""
    """The cursor that came with the page before; empty: from the start."""
    order: str = ""
    """A column's name, `-` before it for the other way round; empty: as the list is by nature."""


FIRST = Page()


@dataclass(frozen=True)
class Slice(Generic[T]):
    """One page's rows, and the cursor behind them; None: these were the last."""

    rows: list[T]
    next: str | None


class BadPage(LedgerError):
    """The order or the cursor is none of this list's."""


@dataclass(frozen=True)
class Order:
    """How a list may be ordered: columns that are never NULL by their names, and one that is unique, to break ties."""

    columns: Mapping[str, ColumnElement[Any]]
    unique: ColumnElement[Any]
    nature: str
    """The order when nobody asks for one, as in :attr:`Page.order`."""

    def read(self, session: Session, query: Select[Any], page: Page) -> Slice[Any]:
        """Return the page's rows of *query*; behind its own columns, what they are ordered by.

        Raises:
            BadPage: no such order, or the cursor is no cursor of it.
        """
        rows = self.rows(session, query, page)
        if len(rows) <= page.limit:
            return Slice(rows, None)
        *_, value, unique = rows[page.limit - 1]
        return Slice(rows[: page.limit], cursor(page.order or self.nature, value, unique))

    def rows(self, session: Session, query: Select[Any], page: Page) -> list[Any]:
        """As :meth:`read`, and one row more if there is one."""
        if not 1 <= page.limit <= MOST_ROWS:
            raise BadPage(f"a page has 1 to {MOST_ROWS} rows, not {page.limit}")
        wanted = page.order or self.nature
        name, falls = wanted.removeprefix("-"), wanted.startswith("-")
        if name not in self.columns:
            raise BadPage(f"there is no order by {name[:50]!r}; there is: {', '.join(sorted(self.columns))}")
        column = self.columns[name]
        if page.after:
            value, unique = _read(page.after, wanted, _kind_of(column))
            query = query.where(self._behind(column, falls, value, unique))
        query = query.order_by(column.desc() if falls else column, self.unique).limit(page.limit + 1)
        return list(session.execute(query.add_columns(column, self.unique)).all())

    def _behind(self, column: ColumnElement[Any], falls: bool, value: Any, unique: str) -> ColumnElement[bool]:
        beyond = column < value if falls else column > value
        return or_(beyond, and_(column == value, self.unique > unique))


def cursor(order: str, value: Any, unique: str) -> str:
    """Return the cursor behind the row with this value of the order's column and this key."""
    said = {"time": value.isoformat()} if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(json.dumps([order, said, unique], separators=(",", ":")).encode()).decode().rstrip("=")


def _read(text: str, order: str, kind: type) -> tuple[Any, str]:
    """Return what a cursor says. It comes from outside: whatever it is, the database must be able to compare it."""
    try:
        padded = text + "=" * (-len(text) % 4)
        of, value, unique = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if isinstance(value, dict):
            value = datetime.fromisoformat(value["time"])
    except (ValueError, TypeError, KeyError, binascii.Error, RecursionError):
        of, value, unique = None, None, None
    is_comparable = isinstance(value, kind) and _is_in_bounds(value)
    if of != order or not is_comparable or not isinstance(unique, str) or "\0" in unique:
        raise BadPage("this cursor is none of this list in this order; begin with its first page") from None
    return value, unique


def _kind_of(column: ColumnElement[Any]) -> type:
    """Return the type of this column's values: text, whole number or time; lists are ordered by nothing else."""
    return str if isinstance(column.type, String) else int if isinstance(column.type, Integer) else datetime


def _is_in_bounds(value: Any) -> bool:
    if isinstance(value, datetime):
        return value.tzinfo is not None
    return "\0" not in value if isinstance(value, str) else abs(value) < 2**31


def read_all(read: Callable[[Page], Slice[T]], *, most: int | None = None) -> list[T]:
    """Return the rows of all pages, or the first *most* of them."""
    rows: list[T] = []
    after = ""
    while True:
        limit = MOST_ROWS if most is None else min(MOST_ROWS, most - len(rows))
        found = read(Page(limit, after))
        rows += found.rows
        if found.next is None or len(rows) == most:
            return rows
        after = found.next
