"""Our central behaves as every central must, on each kind of database."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from airflow_remote_protocol import conformance
from airflow_remote_protocol.conformance import intents, polls
from airflow_remote_provider import compat

from testkit.central import ServedCentral
from testkit.fixtures import KINDS
from testkit.ledger import installed, make_engine

WITHOUT_NOTIFICATIONS_SLOW = {polls.check_no_job_is_offered_twice, intents.check_only_a_serving_worker_gets_offers}
"""They wait for many a poll to be looked at. SQLite's turn shows what there is to see; the ledger's own tests have the rest."""


@pytest.fixture(scope="module", params=KINDS)
def central(
    request: pytest.FixtureRequest, new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedCentral]:
    """One central for all checks: each check makes workers and queues of its own."""
    engine = make_engine(new_database(request.param))
    with installed(engine, tmp_path_factory.mktemp("logs")), ServedCentral() as served:
        yield served
    engine.dispose()


@pytest.mark.parametrize("check", conformance.ALL, ids=conformance.sentence)
def test_central_conforms(check: conformance.Check, central: ServedCentral) -> None:
    if check in WITHOUT_NOTIFICATIONS_SLOW and compat.engine().dialect.name == "mysql":
        pytest.skip("takes long where the database can't notify; SQLite has it")
    check(central)
