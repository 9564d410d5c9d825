"""The budgets of a runtime with the real packages of Airflow, from the package index that uv or pip is configured with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from airflow_remote_protocol.platforms import Platform
from airflow_remote_provider import compat
from airflow_remote_provider.ledger.runtimes import Recipe
from airflow_remote_provider.packing.runtimes.build import Builder, Order
from airflow_remote_provider.packing.runtimes.making import Made
from airflow_remote_provider.packing.runtimes.targets import own_platform
from airflow_remote_provider.packing.scan import Limits

MEBI = 1 << 20
LIMITS = Limits(files=20_000, bytes=512 * MEBI, file_bytes=64 * MEBI)

pytestmark = pytest.mark.index


@pytest.mark.parametrize("platform", [own_platform(), Platform.parse("cp312-windows-x86_64")], ids=str)
def test_airflow_fits_into_the_budget_and_is_always_the_same_tree(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "plugins_folder", lambda: tmp_path / "none")
    monkeypatch.setattr(compat, "local_settings_place", lambda: None)
    builder = Builder(cast(Any, None), LIMITS, who="test", by="test")
    order = Order("default", Recipe(), (str(platform),), adds_only=False)
    made: list[Made] = [builder._make(order, platform, tmp_path / name)[0] for name in ("one", "two")]
    assert made[0].tree.digest == made[1].tree.digest
    assert 40e6 < made[0].tree.bytes <= 85e6
    paths = {entry.path for entry in made[0].tree.entries}
    assert {"site-packages/airflow/sdk/__init__.py", "site-packages/airflow/models/__init__.py", "runtime.json"} <= paths
    assert not [path for path in paths if path.startswith(("site-packages/airflow/ui/", "site-packages/fastapi/"))]
