"""SQLite's one lock, taken where other databases lock rows.

SQLite has no `FOR UPDATE` (SQLAlchemy leaves it out), and Python's driver begins a transaction only at the first statement that
writes: what a verb read until then may have changed since, and its write would undo that; a savepoint that comes first is
committed by its own release. So a locking read and a savepoint take the lock of the whole database first, and wait for it as
long as the connection waits for locks. Plain reads, which idle API processes repeat all the time, never take it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.sql.selectable import GenerativeSelect

BEGIN = "BEGIN IMMEDIATE"


def locking(engine: Engine) -> Engine:
    """Return *engine* with these rules. They hold for what is returned alone: *engine* itself is Airflow's."""
    ours = engine.execution_options()
    event.listen(ours, "before_execute", _before_execute)
    event.listen(ours, "savepoint", _before_savepoint)
    return ours


def _before_execute(connection: Connection, statement: Any, *_: object) -> None:
    if isinstance(statement, GenerativeSelect) and statement._for_update_arg is not None:
        _lock(connection)


def _before_savepoint(connection: Connection, _name: object) -> None:
    _lock(connection)


def _lock(connection: Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    if not driver.in_transaction:
        connection.exec_driver_sql(BEGIN)
