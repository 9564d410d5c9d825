"""The workers' API on a database that notifies and on one that does not. MySQL is one more of the latter: there its ledger is
tested, and that the API as a whole conforms. People's API is what tests the ledger's views, so it has all three."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out MySQL's turn of what asks for the `database`; what makes one for itself says so itself."""
    ours = [item for item in items if HERE in item.path.parents and HERE / "ui_v1" not in item.path.parents]
    left_out = [item for item in ours if _turn(item) == "mysql"]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _turn(item: pytest.Item) -> object:
    return item.callspec.params.get("database_url") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
