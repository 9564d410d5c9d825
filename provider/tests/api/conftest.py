"""The API on a database that notifies and on one that does not. MySQL is one more of the latter: there its ledger is tested, and
that the API as a whole conforms."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testkit.fixtures import POSTGRES


@pytest.fixture(scope="session", params=["sqlite", POSTGRES])
def database_url(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> str:
    return new_database(request.param)
