"""pytest fixtures of the test kit. Each one starts only when a test requests it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from testkit.servers.mariadb import MariadbServer
from testkit.servers.postgres import PostgresServer

POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)
MYSQL = pytest.param("mysql", marks=pytest.mark.mysql)
KINDS = ["sqlite", POSTGRES, MYSQL]
"""The kinds of database, as parameters of a fixture that uses :func:`new_database`."""


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function that creates an empty database of a kind and returns its SQLAlchemy URL."""

    def new(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('database')}/ledger.db"
        create: Callable[[], str] = request.getfixturevalue(f"new_{kind}_database")
        return create()

    return new


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One Postgres for the whole session."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def new_postgres_database(postgres_server: PostgresServer) -> Callable[[], str]:
    """Return a function that creates an empty database and returns its SQLAlchemy URL."""
    numbers = itertools.count(1)
    return lambda: postgres_server.create_database(f"test_{next(numbers)}")


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """One MariaDB for the whole session, in place of MySQL."""
    with MariadbServer() as server:
        yield server


@pytest.fixture(scope="session")
def new_mysql_database(mariadb_server: MariadbServer) -> Callable[[], str]:
    """Return a function that creates an empty database and returns its SQLAlchemy URL."""
    numbers = itertools.count(1)
    return lambda: mariadb_server.create_database(f"test_{next(numbers)}")
