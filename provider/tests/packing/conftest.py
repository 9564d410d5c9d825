"""Two bundles in Airflow's configuration: a local one, and one with versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import trees
from airflow_remote_provider.models import BundleRow
from airflow_remote_provider.packing.scan import Limits
from sqlalchemy import Engine

from testkit.bundles import LOCAL, SNAPSHOTS, configure_bundles

LIMITS = Limits(files=100, bytes=10 << 20, file_bytes=1 << 20)


@pytest.fixture
def dags(tmp_path: Path, database: Engine) -> Iterator[Path]:
    """The directory of the local bundle `dags`; `git` has versions below `repository`."""
    trees.forget_loaded()
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "etl.py").write_text("from helpers import two\n")
    (dags / "helpers.py").write_text("two = 2\n")
    repository = tmp_path / "repository"
    for version in ("v1", "v2"):
        (repository / version).mkdir(parents=True)
        (repository / version / "dag.py").write_text(f"# {version}\n")
    (repository / "now").write_text("v2")
    local, git = (LOCAL, {"path": str(dags)}), (SNAPSHOTS, {"path": str(repository)})
    with configure_bundles(tmp_path / "storage", dags=local, git=git):
        yield dags


def row(name: str = "dags") -> BundleRow:
    with compat.transaction() as session:
        found = session.get(BundleRow, name)
    assert found is not None
    return found
