"""Our central behaves as every central must, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_protocol import conformance

from testkit.central import ServedCentral
from testkit.ledger import installed, make_engine


@pytest.fixture(
    scope="module",
    params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres), pytest.param("mysql", marks=pytest.mark.mysql)],
)
def central(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedCentral]:
    """One central for all checks: each check makes workers and queues of its own."""
    home: Path = tmp_path_factory.mktemp("central")
    url = (
        f"sqlite:///{home}/ledger.db" if request.param == "sqlite" else request.getfixturevalue(f"new_{request.param}_database")()
    )
    engine = make_engine(url)
    with installed(engine, home / "logs"), ServedCentral() as served:
        yield served
    engine.dispose()


@pytest.mark.parametrize("check", conformance.ALL, ids=conformance.sentence)
def test_central_conforms(check: conformance.Check, central: ServedCentral) -> None:
    check(central)
