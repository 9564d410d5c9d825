"""Makes releases of the worker's own software: for each platform a tree of `airflow-remote-worker` and what it needs.

Workers install nothing from an index (ADR 0044): the tree is `release.json` and `site-packages/`, unpacked by uv as runtimes are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from airflow_remote_protocol.platforms import Platform
from airflow_remote_protocol.trees import Tree
from packaging.version import InvalidVersion, Version
from sqlalchemy.orm import Session

from airflow_remote_provider import __version__, compat
from airflow_remote_provider.ledger.releases import ReleaseRecord
from airflow_remote_provider.ledger.runtimes import Built
from airflow_remote_provider.ledger.trees import RELEASE
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.following import FAILED
from airflow_remote_provider.packing.runtimes.making import Made, Maker, Report, scan_made, unpack
from airflow_remote_provider.packing.runtimes.parts import write_about
from airflow_remote_provider.packing.runtimes.resolve import Wanted
from airflow_remote_provider.packing.runtimes.targets import own_platform, parse
from airflow_remote_provider.packing.scan import Limits, ScanState
from airflow_remote_provider.packing.storing import Transaction
from airflow_remote_provider.stores.blobs import BlobStore

WORKER, PROTOCOL = "airflow-remote-worker", "airflow-remote-protocol"
OURS = str(Version(__version__))
"""The version that belongs to this provider: the packages of one version are made together."""
WITHOUT_RELEASES = ("windows",)
"""Systems whose workers take no releases: they can't replace the program of their process."""


@dataclass(frozen=True)
class Order:
    """Which release to make."""

    version: str
    """Of the package `airflow-remote-worker`."""
    platforms: tuple[str, ...]
    is_whole: bool = False
    """Whether it is the provider's version for all platforms of the fleet: then those that fail are tried again."""
    adds_only: bool = False
    """Whether it only adds platforms to the newest release."""


class AddRelease(Protocol):
    """A verb of the ledger that publishes trees as a new serial."""

    def __call__(self, session: Session, version: str, built: Sequence[Built], *, built_with: Mapping[str, str]) -> int | None:
        """Return the serial; None: the newest one has these trees already."""


def plan(
    version: str | None, platforms: Sequence[str] | None, fleet: Collection[str], known: ReleaseRecord | None = None
) -> Order:
    """Return what to make.

    Args:
        version: None: that of this provider.
        platforms: None: *fleet*, the platforms of workers that take releases, or this computer's if there are no such workers.
        known: what was added before.

    Raises:
        CannotBuild: the version, or a platform, is not valid.
    """
    try:
        wanted_version = OURS if version is None else str(Version(version))
    except InvalidVersion:
        raise CannotBuild(f"{(version or '')[:50]!r} is not a version such as {__version__}") from None
    wanted = dict.fromkeys(map(parse, platforms)) if platforms else usable(fleet) or [own_platform()]
    for platform in wanted:
        if platform.system in WITHOUT_RELEASES:
            raise CannotBuild(f"{platform}: workers on Windows take no releases from central; update them on their machines")
    names = tuple(map(str, wanted))
    adds_only = bool(platforms) and known is not None and _adds_only(known, wanted_version, names)
    return Order(wanted_version, names, is_whole=not platforms and wanted_version == OURS, adds_only=adds_only)


def _adds_only(known: ReleaseRecord, version: str, platforms: Collection[str]) -> bool:
    have = {edition.platform for edition in known.editions}
    return known.built_with == built_with() and version == known.newest_version and have.isdisjoint(platforms)


def built_with() -> dict[str, str]:
    """Return the version that decides whether a release must be made again."""
    return {"provider": __version__}


def usable(fleet: Collection[str]) -> list[Platform]:
    """Return the platforms of workers for which a release can be made: one of another platform must not prevent the others."""
    found = []
    for text in sorted(fleet):
        with suppress(CannotBuild):
            found.append(parse(text))
    return [platform for platform in found if platform.system not in WITHOUT_RELEASES]


class ReleaseBuilder:
    """Makes releases on this computer. Blocking, one thread."""

    def __init__(
        self,
        store: BlobStore,
        limits: Limits,
        *,
        who: str,
        add: AddRelease,
        wheels: Path | None = None,
        report: Callable[[str], None] = lambda line: None,
        environ: Mapping[str, str],
        in_transaction: Transaction = compat.in_transaction,
    ) -> None:
        """*who* names this process for users. *wheels* is a directory that is used beside the package index.

        Raises:
            CannotBuild: *wheels* is no directory.
        """
        self._add_release = add
        self._environ = environ if wheels is None else with_wheels(environ, wheels)
        self._report = report
        self._maker = Maker(store, RELEASE, limits, who=who, report=report, in_transaction=in_transaction)

    def build(self, order: Order) -> Report:
        """Make a release, and publish it as a new serial. Raises: as :meth:`.Maker.build`."""
        return self._maker.build(order.platforms, partial(self._make, order.version), partial(self._add, order=order))

    def _make(self, version: str, platform: Platform, work: Path) -> tuple[Made, ScanState]:
        began = self._maker.monotonic()
        self._report(f"{platform}: resolving and unpacking packages")
        tree, state = make_tree(version, platform, work, environ=self._environ, limits=self._maker.limits)
        return Made(str(platform), tree, self._maker.monotonic() - began), state

    def _add(self, session: Session, *, order: Order, made: Sequence[Made], failed: Collection[str]) -> int | None:
        versions = built_with() | ({FAILED: ", ".join(sorted(failed))} if failed and order.is_whole else {})
        built = [Built(one.platform, one.tree.digest) for one in made]
        return self._add_release(session, order.version, built, built_with=versions)


def make_tree(
    version: str,
    platform: Platform,
    work: Path,
    *,
    environ: Mapping[str, str],
    limits: Limits,
    constraints: Sequence[str] = (),
) -> tuple[Tree, ScanState]:
    """Make the tree of a release in the directory *work*, which may exist if it is empty.

    Raises:
        CannotBuild: a package can't be had for this platform, or its files can't travel.
    """
    wanted = Wanted(
        platform=platform,
        requirements=[f"{WORKER}=={version}"],
        own=(),
        constraints=[*constraints, f"{PROTOCOL}>=0.dev0"],  # uv takes a pre-release only where a requirement names one
        excluded=(),
        without_wheel="put its wheel into a directory, and name that with --wheels",
        elsewhere="name a directory that has its wheel (--wheels), or the index that has it (UV_INDEX)",
    )
    directory = unpack(wanted, work, environ=environ, limits=limits)
    write_about(directory / "release.json", {"version": version, "python": platform.python})
    return scan_made(directory, limits)


def with_wheels(environ: Mapping[str, str], wheels: Path) -> dict[str, str]:
    """Return the environment in which uv finds these wheels, beside its index and other directories.

    Raises:
        CannotBuild: it is no directory with wheels.
    """
    try:
        has_wheels = any(path.suffix == ".whl" for path in wheels.iterdir())
    except OSError as error:
        raise CannotBuild(f"--wheels: {wheels} can't be read: {error.strerror or error}") from None
    if not has_wheels:
        raise CannotBuild(f"--wheels: {wheels} has no wheels; put {WORKER} and {PROTOCOL} into it (pip download --dest)")
    others = environ.get("UV_FIND_LINKS")
    return {**environ, "UV_FIND_LINKS": ",".join([str(wheels.absolute()), *([others] if others else [])])}
