"""Sessions on Airflow's database: one transaction per call of the ledger, repeated after a deadlock; with locks on SQLite too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from airflow_remote_provider.sqlite_lock import add_locking

T = TypeVar("T")


def engine() -> Engine:
    """Return Airflow's SQLAlchemy engine."""
    from airflow import settings

    if settings.engine is None:
        settings.configure_orm()
    return settings.engine  # type: ignore[no-any-return]


def connect() -> Connection:
    """Return a connection to run several transactions on; the caller closes it."""
    return _ours(engine()).connect()


@contextmanager
def transaction(connection: Connection | None = None, *, lock_wait_s: float | None = None) -> Iterator[Session]:
    """Open a session with one transaction on Airflow's engine, or on a *connection* of it; never the scheduler's session.

    With *lock_wait_s* it fails instead of waiting longer for a lock (on SQLite, it waits as long as every connection).
    """
    bind = engine()
    if lock_wait_s is None or bind.dialect.name == "sqlite":
        with _new_session(bind, connection) as session, session.begin():
            yield session
    elif bind.dialect.name == "mysql":
        with (
            _connection_with_lock_wait(bind, lock_wait_s) as connection,
            _new_session(bind, connection) as session,
            session.begin(),
        ):
            yield session
    else:
        with _new_session(bind) as session, session.begin():
            session.execute(select(func.set_config("lock_timeout", str(int(lock_wait_s * 1000)), True)))
            yield session


def in_transaction(verb: Callable[[Session], T], connection: Connection | None = None, *, lock_wait_s: float | None = None) -> T:
    """Return the result of *verb*, run in a :func:`transaction`, which is repeated if the database aborts it in a deadlock.

    MySQL locks index entries and rows one after the other, so two calls that lock in the same order can still deadlock.
    """
    for tries_left in reversed(range(DEADLOCK_TRIES)):
        try:
            with transaction(connection, lock_wait_s=lock_wait_s) as session:
                return verb(session)
        except DBAPIError as error:
            if not (tries_left and _is_deadlock(error)):
                raise
    raise AssertionError("the last try returns or raises")


DEADLOCK_TRIES = 3


_MYSQL_DEADLOCK = 1213


_POSTGRES_DEADLOCK = "40P01"


def _is_deadlock(error: DBAPIError) -> bool:
    driver: Any = error.orig
    codes = (driver.args[:1] or (None,))[0], getattr(driver, "pgcode", None), getattr(driver, "sqlstate", None)
    return codes[0] == _MYSQL_DEADLOCK or _POSTGRES_DEADLOCK in codes[1:]


@cache
def _ours(bind: Engine) -> Engine:
    """Return Airflow's engine with our locking rules, where it needs them."""
    return add_locking(bind) if bind.dialect.name == "sqlite" else bind


@cache
def _session_factory(bind: Engine) -> sessionmaker[Session]:
    return sessionmaker(_ours(bind), expire_on_commit=False, autoflush=False)


def _new_session(bind: Engine, connection: Connection | None = None) -> Session:
    factory = _session_factory(bind)
    return factory() if connection is None else factory(bind=connection)


@contextmanager
def _connection_with_lock_wait(bind: Engine, seconds: float) -> Iterator[Connection]:
    """Open a connection to MySQL that waits at most *seconds* (at least one) for a lock; the setting is undone at the end."""
    with bind.connect() as connection:
        connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {max(1, int(seconds))}")
        connection.commit()
        try:
            yield connection
        finally:
            if not connection.invalidated:
                try:
                    connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = DEFAULT")
                    connection.commit()
                except DBAPIError:
                    connection.invalidate()
