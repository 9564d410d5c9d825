"""A database with our tables, on each kind that runs without a server of its own or with one that we start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from testkit.ledger import installed, make_engine

BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    new: Callable[[], str] = request.getfixturevalue("new_postgres_database")
    return new()


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Engine]:
    """The engine that all our code uses, with all tables."""
    engine = make_engine(database_url)
    with installed(engine, tmp_path / "logs"):
        yield engine
    engine.dispose()
