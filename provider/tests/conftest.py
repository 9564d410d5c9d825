"""A database with the tables of the Remote Executor, of each kind that needs no server or a server that the tests start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from testkit.fixtures import KINDS
from testkit.ledger import Claimers, empty_tables, make_engine, use_ledger


@pytest.fixture(scope="session", params=KINDS)
def database_url(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> str:
    """One database of each kind for the whole session; :func:`database` empties it for each test."""
    return new_database(request.param)


@pytest.fixture(scope="session")
def _engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    # SQLite removes its journal with the last connection and makes it again with the next, three times a transaction.
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        connection.rollback()
        yield engine
    engine.dispose()


@pytest.fixture
def database(_engine: Engine, tmp_path: Path) -> Iterator[Engine]:
    """The engine that all code under test uses, with all tables empty."""
    empty_tables(_engine)
    with use_ledger(_engine, tmp_path / "logs"):
        yield _engine


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `airflow remote …` through Airflow's own parser; return what it printed to stdout."""
    from airflow.cli import cli_parser  # imported here, because it loads most of Airflow, which most suites don't need

    def run(*words: str) -> str:
        capsys.readouterr()
        args = cli_parser.get_parser().parse_args(["remote", *words])
        args.func(args)
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="session")
def claimers() -> Iterator[Claimers]:
    """Other processes that claim jobs concurrently."""
    claimers = Claimers()
    yield claimers
    claimers.close()
