"""Selects the databases of the API's tests: with notifications and without.

For the worker API, MySQL, which has no notifications either, is only tested with the ledger and the conformance of the API as a
whole. The REST API's tests cover the ledger's views, so they run on all three databases.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect MySQL for tests that use the fixture `database`; tests that create a database choose its kind themselves."""
    ours = [item for item in items if HERE in item.path.parents and HERE / "ui_v1" not in item.path.parents]
    left_out = [item for item in ours if _turn(item) == "mysql"]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _turn(item: pytest.Item) -> object:
    return item.callspec.params.get("database_url") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
