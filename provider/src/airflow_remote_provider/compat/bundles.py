"""Airflow's Dag bundles: what is configured, and a directory with a bundle's files at one version."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
"""In a URL; errors of git quote the address of the repository."""


class BundleUnavailable(Exception):
    """The bundle's files can't be had now; the text says why."""


class VersionGone(BundleUnavailable):
    """The bundle does not have this version, and repeating the attempt changes nothing."""


@dataclass(frozen=True)
class Checkout:
    """A bundle's files on this machine. They stay as they are while the checkout is open, unless someone edits them."""

    path: Path
    version: str | None
    """None: the bundle has no versions."""


class BundleSource:
    """One bundle of Airflow's configuration, as this process can read it."""

    def __init__(self, name: str, bundle_class: Any) -> None:
        from airflow.dag_processing.bundles.local import LocalDagBundle

        self.name = name
        self.is_local = issubclass(bundle_class, LocalDagBundle) and bundle_class.refresh is LocalDagBundle.refresh
        """Whether it is a directory of this machine that Airflow never writes."""
        self.is_versioned = bool(bundle_class.supports_versioning)
        self._newest: Any = None

    def is_readable(self) -> bool:
        """Return whether it is a directory that this process can list."""
        path = self.path()
        return path is not None and path.is_dir() and os.access(path, os.R_OK | os.X_OK)

    def path(self) -> Path | None:
        """Return the directory of its newest files, which may be missing; None if the bundle can't be used."""
        try:
            return Path(self._opened().path)
        except BundleUnavailable:
            return None

    @property
    def refresh_s(self) -> float:
        """How often Airflow's Dag processor refreshes it, in seconds.

        Raises:
            BundleUnavailable: it can't be used.
        """
        return float(self._opened().refresh_interval)

    @contextmanager
    def newest(self) -> Iterator[Checkout]:
        """Open its newest files. Those of a bundle that is not local are refreshed first.

        Raises:
            BundleUnavailable: they can't be had now.
        """
        from airflow.dag_processing.bundles.base import unpack_bundle_version

        bundle = self._opened()
        with self._locked(bundle):
            with _translated(f"refresh the bundle {self.name!r}"):
                if not bundle.is_initialized:
                    bundle.initialize()
                elif not self.is_local:
                    bundle.refresh()
                version = unpack_bundle_version(bundle.get_current_version(), bundle)[0] if self.is_versioned else None
                checkout = Checkout(Path(bundle.path), version)
            yield checkout

    @contextmanager
    def at(self, version: str) -> Iterator[Checkout]:
        """Open its files at *version*.

        Raises:
            VersionGone: there is no such version.
            BundleUnavailable: they can't be had now.
        """
        from airflow.dag_processing.bundles.base import BundleVersionLock

        # Against Airflow's own removal of old versions; without effect where its lock can't be written.
        with BundleVersionLock(self.name, version):
            with _translated(f"make version {version} of the bundle {self.name!r}", version):
                bundle = _manager().get_bundle(self.name, version)
                bundle.initialize()
                checkout = Checkout(Path(bundle.path), version)
            yield checkout

    def _opened(self) -> Any:
        if self._newest is None:
            with _translated(f"open the bundle {self.name!r}"):
                self._newest = _manager().get_bundle(self.name)
        return self._newest

    def _locked(self, bundle: Any) -> AbstractContextManager[None]:
        """Return the lock that keeps other processes of this machine from refreshing the bundle.

        Nobody refreshes a local one, and Airflow can't lock one whose name has a slash.
        """
        return nullcontext() if self.is_local or "/" in self.name else bundle.lock()


def bundle_sources() -> dict[str, BundleSource]:
    """Return the bundles of this process's configuration, by name. Keep them: an opened bundle need not be opened again.

    Raises:
        BundleUnavailable: Airflow can't read the configuration, or import the class of a bundle.
    """
    with _translated("read [dag_processor] dag_bundle_config_list"):
        configured = _manager()._bundle_config
        return {name: BundleSource(name, config.bundle_class) for name, config in sorted(configured.items())}


@dataclass(frozen=True)
class KnownBundle:
    """An active bundle in Airflow's database."""

    name: str
    teams: frozenset[str]


def known_bundles(session: Session) -> list[KnownBundle]:
    """Return the bundles that Airflow's Dag processors have in their configuration, by name."""
    from airflow.models.dagbundle import DagBundleModel
    from sqlalchemy.orm import selectinload

    query = select(DagBundleModel).where(DagBundleModel.active.is_(True)).options(selectinload(DagBundleModel.teams))
    bundles = session.scalars(query.order_by(DagBundleModel.name))
    return [KnownBundle(bundle.name, frozenset(team.name for team in bundle.teams)) for bundle in bundles]


def parsed_dag_files(session: Session, name: str) -> list[str]:
    """Return the paths within the bundle of the Dag files that Airflow has parsed and that still had Dags then, some of them."""
    from airflow.models.dag import DagModel

    query = select(DagModel.relative_fileloc).where(
        DagModel.bundle_name == name, DagModel.is_stale.is_(False), DagModel.relative_fileloc.is_not(None)
    )
    return list(session.scalars(query.distinct().limit(1000)))


def remove_old_versions() -> None:
    """Remove versions of bundles that were not used for long from this machine, by the rules that Airflow's workers follow."""
    from airflow.dag_processing.bundles.base import BundleUsageTrackingManager

    BundleUsageTrackingManager().remove_stale_bundle_versions()


def dag_source_hash(text: str) -> str:
    """Return the hash of a Dag file's text as Airflow stores it (`dag_code.source_code_hash`)."""
    from airflow.models.dagcode import DagCode

    return DagCode.dag_source_hash(text)  # type: ignore[no-any-return]


@cache
def _manager() -> Any:
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    return DagBundlesManager()


@contextmanager
def _translated(what: str, version: str | None = None) -> Iterator[None]:
    """Turn whatever a bundle's class raises, which anyone can write, into the exceptions of this module."""
    try:
        yield
    except Exception as error:
        text = f"could not {what}: {'; '.join(_said(error))}"
        # What GitDagBundle says, with an exception of a general class.
        gone = version is not None and version in str(error) and "not found" in str(error)
        raise (VersionGone if gone else BundleUnavailable)(text) from error


def _said(error: BaseException) -> Iterator[str]:
    """Yield the first line of *error* and of its causes, without credentials."""
    found: BaseException | None = error
    for _ in range(3):
        if found is None:
            return
        lines = [line.strip() for line in str(found).splitlines() if line.strip()]
        yield CREDENTIALS.sub("…@", (f"{type(found).__name__}: {' '.join(lines)}" if lines else type(found).__name__)[:500])
        found = found.__cause__
