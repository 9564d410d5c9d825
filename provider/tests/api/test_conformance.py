"""This central passes the conformance suite on each kind of database."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from airflow_remote_protocol import conformance
from airflow_remote_protocol.conformance import every_request, intents, polls
from airflow_remote_provider import compat
from airflow_remote_provider.api.worker_v1.routes import routes
from starlette.routing import Match

from testkit.central import ServedCentral
from testkit.fixtures import KINDS
from testkit.ledger import make_engine, use_ledger

WITHOUT_NOTIFICATIONS_SLOW = {polls.check_no_job_is_offered_twice, intents.check_only_a_serving_worker_gets_offers}
"""Checks that wait for many polls. They run on SQLite; the ledger's own tests cover the rest."""


@pytest.fixture(scope="module", params=KINDS)
def central(
    request: pytest.FixtureRequest, new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedCentral]:
    """One central for all checks: each check makes workers and queues of its own."""
    engine = make_engine(new_database(request.param))
    with use_ledger(engine, tmp_path_factory.mktemp("logs")), ServedCentral() as served:
        yield served
    engine.dispose()


@pytest.mark.parametrize("check", conformance.ALL, ids=conformance.sentence)
def test_central_conforms(check: conformance.Check, central: ServedCentral) -> None:
    if check in WITHOUT_NOTIFICATIONS_SLOW and compat.engine().dialect.name == "mysql":
        pytest.skip("takes long where the database can't notify; runs on SQLite")
    check(central)


def test_each_route_of_this_central_is_among_those_that_the_suite_asks_for() -> None:
    *served, other_paths = routes(None)  # type: ignore[arg-type]  # nothing is called
    assert other_paths.path == "/{path:path}"
    asked = [
        {"type": "http", "method": method, "path": f"/{path.partition('?')[0]}"} for method, path in every_request.all_routes()
    ]
    for route in served:
        assert sum(route.matches(scope)[0] is Match.FULL for scope in asked) == 1, route.path
    assert len(served) == len(asked)
