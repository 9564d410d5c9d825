"""Central for attacks: the app under uvicorn, on SQLite and on Postgres, with Airflow's own Execution API in process."""

from __future__ import annotations

import testkit.ledger  # noqa: F401  isort: skip  (first: it points Airflow elsewhere)

from collections.abc import Callable, Iterator

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.settings import settings

from testkit.attacker import LOG_LIMIT, PASSWORD, Attacker, take_over
from testkit.central import ServedCentral
from testkit.fixtures import POSTGRES
from testkit.ledger import make_engine, use_ledger


@pytest.fixture(scope="session")
def _airflow() -> None:
    """Airflow's own database for the Execution API, with one connection and one variable that no job is granted."""
    from airflow.models import Connection, Variable
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    with create_session() as session:
        session.add(Connection(conn_id="plant", conn_type="http", password=PASSWORD))
        Variable.set("plant", PASSWORD, session=session)


@pytest.fixture(scope="module", params=["sqlite", POSTGRES])
def central(
    _airflow: None,
    request: pytest.FixtureRequest,
    new_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServedCentral]:
    engine = make_engine(new_database(request.param))
    with pytest.MonkeyPatch.context() as patch, use_ledger(engine, tmp_path_factory.mktemp("logs")):
        patch.setenv("AIRFLOW__REMOTE__LOG_BYTES_PER_JOB", str(LOG_LIMIT))
        settings.cache_clear()
        with ServedCentral(compat.execution_api_app) as served:
            yield served
    settings.cache_clear()
    engine.dispose()


@pytest.fixture
def attacker(central: ServedCentral) -> Attacker:
    return take_over(central)


@pytest.fixture
def victim(central: ServedCentral) -> Attacker:
    """Another worker, on another queue."""
    return take_over(central)
