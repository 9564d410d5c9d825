"""Dag bundles for tests: a configuration of Airflow with directories of the test, and a bundle with versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion
from airflow_remote_provider.compat import bundles as compat_bundles

LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"
GIT = "airflow.providers.git.bundles.git.GitDagBundle"
SNAPSHOTS = "testkit.bundles.SnapshotBundle"


class SnapshotBundle(BaseDagBundle):  # type: ignore[misc]
    """A bundle with versions, which behaves as `GitDagBundle` does: each directory below *path* is a version, `now` names one."""

    supports_versioning = True

    def __init__(self, *, path: str, **options: Any) -> None:
        super().__init__(**options)
        self._origin = Path(path)
        self._checkout = self.versions_dir / self.version if self.version else self.base_dir / "tracking"

    def initialize(self) -> None:
        if not self._origin.is_dir():
            raise RuntimeError("Error cloning repository") from OSError(
                "could not read from https://user:secret@git.example/dags"
            )
        with self.lock():
            if self.version is None:
                self.refresh()
            elif not (self._origin / self.version).is_dir():
                raise RuntimeError(f"Version {self.version} not found in the repository")
            elif not self._checkout.exists():
                shutil.copytree(self._origin / self.version, self._checkout)
        super().initialize()

    def refresh(self) -> None:
        with self.lock():
            if self._checkout.exists():
                shutil.rmtree(self._checkout)
            shutil.copytree(self._origin / self._now(), self._checkout)

    def get_current_version(self) -> BundleVersion:
        return BundleVersion(self.version or self._now())

    @property
    def path(self) -> Path:
        return Path(self._checkout)

    def _now(self) -> str:
        return (self._origin / "now").read_text()


@contextmanager
def configure_bundles(storage: Path, **bundles: tuple[str, Mapping[str, Any]]) -> Iterator[None]:
    """Configure these bundles, each a class path and its arguments, as the only ones of Airflow."""
    config = [{"name": name, "classpath": path, "kwargs": dict(options)} for name, (path, options) in bundles.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(config))
        patch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(storage))
        forget_configuration()
        yield
    forget_configuration()


def forget_configuration() -> None:
    """Let the next use read Airflow's configuration again. Airflow 3.4 keeps it as well."""
    from airflow.dag_processing.bundles import manager

    compat_bundles._manager.cache_clear()
    if hasattr(manager, "_load_bundle_config_snapshot"):
        manager._load_bundle_config_snapshot.cache_clear()
