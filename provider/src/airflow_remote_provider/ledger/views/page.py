"""Pages of a list: a number of rows after a cursor, in one of the orders of the list.

A cursor names the last row that was seen, not a number of rows. So rows that are added or removed meanwhile make no other row
appear twice, or be skipped.
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
    """Selects a part of a list."""

    limit: int = 100
    """1 to 1,000."""
    after: str = ""
    """The cursor of the previous page; empty: start with the first row."""
    order: str = ""
    """Name of a column, with `-` before it for descending order; empty: the list's default order."""


FIRST = Page()


@dataclass(frozen=True)
class Slice(Generic[T]):
    """The rows of one page, and the cursor after them; None if there are no more rows."""

    rows: list[T]
    next: str | None


class BadPage(LedgerError):
    """The list has no such order, or the cursor does not belong to it."""


@dataclass(frozen=True)
class Order:
    """The orders of a list: columns by name, which are never NULL, and a unique column that breaks ties."""

    columns: Mapping[str, ColumnElement[Any]]
    unique: ColumnElement[Any]
    nature: str
    """The default order, as in :attr:`Page.order`."""

    def read(self, session: Session, query: Select[Any], page: Page) -> Slice[Any]:
        """Return the page's rows of *query*, each with two more columns: `order_value` and `order_key`.

        Raises:
            BadPage: the list has no such order, or the cursor does not belong to it.
        """
        rows = self.rows(session, query, page)
        if len(rows) <= page.limit:
            return Slice(rows, None)
        last = rows[page.limit - 1]
        return Slice(rows[: page.limit], cursor(page.order or self.nature, last.order_value, last.order_key))

    def rows(self, session: Session, query: Select[Any], page: Page) -> list[Any]:
        """Return the rows as :meth:`read` does, and one more if there are more."""
        if not 1 <= page.limit <= MOST_ROWS:
            raise BadPage(f"a page has 1 to {MOST_ROWS} rows, not {page.limit}")
        wanted = page.order or self.nature
        name, falls = wanted.removeprefix("-"), wanted.startswith("-")
        if name not in self.columns:
            raise BadPage(f"this list has no order by {name[:50]!r}; it has: {', '.join(sorted(self.columns))}")
        column = self.columns[name]
        if page.after:
            value, unique = _read(page.after, wanted, _kind_of(column))
            beyond = column < value if falls else column > value
            query = query.where(or_(beyond, and_(column == value, self.unique > unique)))
        query = query.order_by(column.desc() if falls else column, self.unique).limit(page.limit + 1)
        placed = query.add_columns(column.label("order_value"), self.unique.label("order_key"))
        return list(session.execute(placed).all())


def cursor(order: str, value: Any, unique: str) -> str:
    """Return the cursor after the row with this *value* of the column of the order, and this key."""
    encoded = {"time": value.isoformat()} if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(json.dumps([order, encoded, unique], separators=(",", ":")).encode()).decode().rstrip("=")


def _read(text: str, order: str, kind: type) -> tuple[Any, str]:
    """Decode a cursor. Clients can send any text, so check that the database can compare the value."""
    try:
        padded = text + "=" * (-len(text) % 4)
        of, value, unique = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if isinstance(value, dict):
            value = datetime.fromisoformat(value["time"])
    except (ValueError, TypeError, KeyError, binascii.Error, RecursionError):
        of, value, unique = None, None, None
    is_comparable = isinstance(value, kind) and _is_in_bounds(value)
    if of != order or not is_comparable or not isinstance(unique, str) or "\0" in unique:
        raise BadPage("this cursor does not belong to this list in this order; begin with the first page") from None
    return value, unique


def _kind_of(column: ColumnElement[Any]) -> type:
    """Return the type of the column's values: text, integer or time. Lists are ordered by no other type."""
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
