"""Takes SQLite's only lock where other databases lock rows.

SQLite has no `FOR UPDATE` (SQLAlchemy omits it), and Python's driver begins a transaction only at the first statement that
writes. Another transaction may change the rows that a ledger function has read until then, and its write would undo that change.
A savepoint at the beginning is committed by its own release. So a locking read and a savepoint first take the lock of the whole
database, and wait for it as long as the connection waits for locks. Plain reads, which idle API processes repeat all the time,
never take it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.sql.selectable import GenerativeSelect

BEGIN = "BEGIN IMMEDIATE"


def add_locking(engine: Engine) -> Engine:
    """Return a copy of *engine* with these rules. *engine* itself is Airflow's and does not change."""
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
