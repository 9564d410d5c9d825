"""Builds a runtime: for each platform a directory, made from central's own versions and stored as a tree; together one serial."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from airflow_remote_protocol.platforms import Platform
from airflow_remote_protocol.trees import MAX_FILES, Tree
from packaging.utils import canonicalize_name
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import runtimes
from airflow_remote_provider.ledger.runtimes import Built, Recipe, RuntimeRecord
from airflow_remote_provider.ledger.trees import RUNTIME, BlobsMissing, TreeGone
from airflow_remote_provider.packing.runtimes import parts, requirements
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.following import FAILED
from airflow_remote_provider.packing.runtimes.resolve import Uv, Wanted
from airflow_remote_provider.packing.runtimes.targets import own_platform, parse
from airflow_remote_provider.packing.runtimes.trim import check_names, trim
from airflow_remote_provider.packing.scan import Limits, Moved, ScanState, Unpublishable, scan
from airflow_remote_provider.packing.storing import Storing, Transaction
from airflow_remote_provider.stores.blobs import BlobStore

PYTHON = re.compile(r"3\.[0-9]{1,2}\Z")
TRIES = 3
"""How often to store again what the garbage collection took while other platforms were built."""


@dataclass(frozen=True)
class Change:
    """What a user asks for; None keeps what the runtime has."""

    requirements: str | None = None
    platforms: tuple[str, ...] | None = None
    """Without the version of Python (`linux-gnu-x86_64`) if *pythons* name it."""
    pythons: tuple[str, ...] | None = None
    env: Mapping[str, str] | None = None
    follow: bool | None = None
    build_sdists: bool | None = None


@dataclass(frozen=True)
class Order:
    """What to build."""

    name: str
    recipe: Recipe
    """As it is stored, if anything is built."""
    platforms: tuple[str, ...]
    """Those to build now."""
    adds_only: bool
    """Whether this adds platforms to what is built already, and changes nothing for other platforms."""


@dataclass(frozen=True)
class Made:
    """The runtime of one platform. Sizes in bytes."""

    platform: str
    tree: Tree
    took_s: float
    others: tuple[str, ...] = ()
    """Packages that have another version in it than on central, such as `numpy 2.2.1 (central: 2.3.0)`."""
    stored_files: int = 0
    """Files that central lacked."""
    stored_bytes: int = 0
    """Their packed size."""


@dataclass(frozen=True)
class Report:
    """What became of an order."""

    serial: int | None
    """None: no platform could be built, or all are as they were at the newest serial."""
    made: Sequence[Made] = ()
    failed: Mapping[str, CannotBuild] = field(default_factory=dict)
    """By platform."""


def plan(session: Session, name: str, change: Change) -> Order:
    """Return what to build of a runtime.

    Without platforms, those of the fleet are built, or this computer's if no worker has reported one. A named platform is
    added to those of the runtime. If nothing else has changed since the newest build, only added platforms are built.

    Raises:
        CannotBuild: a requirement, a variable or a platform can't be used.
        LedgerError: the name is not valid.
    """
    runtimes.check_name(name)
    known = runtimes.get(session, name)
    before = known.recipe if known is not None else Recipe()
    fleet = tuple(sorted(runtimes.fleet_platforms(session))) or (str(own_platform()),)
    named = _named(change, fleet)
    recipe = Recipe(
        requirements=before.requirements if change.requirements is None else requirements.check(change.requirements),
        platforms=_merged(known, named),
        env=dict(before.env if change.env is None else change.env),
        follow=before.follow if change.follow is None else change.follow,
        build_sdists=before.build_sdists if change.build_sdists is None else change.build_sdists,
    )
    parts.check_variables(recipe.env)
    is_same = known is not None and known.built > 0 and _is_same(recipe, before) and known.built_with == requirements.built_with()
    if named and is_same:
        return Order(name, recipe, named, adds_only=True)
    every = recipe.platforms or tuple(dict.fromkeys((*fleet, *named)))
    return Order(name, recipe, every, adds_only=False)


def _named(change: Change, fleet: tuple[str, ...]) -> tuple[str, ...]:
    """Return the platforms that a user names, in the order in which they are built."""
    texts = list(change.platforms or ())
    if change.pythons:
        rests = dict.fromkeys(re.sub(r"\Acp3[0-9]+-", "", text) for text in texts or fleet)
        for python in change.pythons:
            if not PYTHON.match(python):
                raise CannotBuild(f"{python[:20]!r} is not a version of Python such as 3.12; write the first two numbers")
        texts = [f"cp{python.replace('.', '')}-{rest}" for rest in rests for python in change.pythons]
    return tuple(dict.fromkeys(str(parse(text)) for text in texts))


def _merged(known: RuntimeRecord | None, named: tuple[str, ...]) -> tuple[str, ...]:
    """Return the platforms of the recipe; none: those of the fleet."""
    if known is None or not known.built:
        return named
    return tuple(dict.fromkeys((*known.recipe.platforms, *named))) if known.recipe.platforms else ()


def _is_same(recipe: Recipe, before: Recipe) -> bool:
    return replace(recipe, platforms=(), follow=True) == replace(before, platforms=(), follow=True, env=dict(before.env))


class Builder:
    """Builds runtimes on this computer. Blocking, one thread."""

    def __init__(
        self,
        store: BlobStore,
        limits: Limits,
        *,
        who: str,
        by: str,
        report: Callable[[str], None] = lambda line: None,
        environ: Mapping[str, str] | None = None,
        in_transaction: Transaction = compat.in_transaction,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*who* names this process, and *by* the user, for users. *report* is called with lines about the progress."""
        self._limits = replace(limits, files=MAX_FILES)
        self._by = by
        self._report = report
        self._environ = os.environ if environ is None else environ
        self._in_transaction = in_transaction
        self._monotonic = monotonic
        self._storing = Storing(store, RUNTIME, who=who, packers=os.cpu_count() or 1, in_transaction=in_transaction)

    def build(self, order: Order) -> Report:
        """Build an order, and publish it as a new serial. A platform that can't be built does not keep the others from it.

        Raises:
            LedgerError: what was stored is removed again and again.
            OSError: the disk, or the store of blobs, does not take it.
            SQLAlchemyError: the database does not answer.
        """
        failed: dict[str, CannotBuild] = {}
        made: list[tuple[Made, ScanState]] = []
        with _directory() as work:
            for text in order.platforms:
                try:
                    made.append(self._make(order, parse(text), work / text))
                except CannotBuild as error:
                    failed[text] = error
                    self._report(f"{text}: not built: {error}")
            return self._publish(order, made, failed)

    def _make(self, order: Order, platform: Platform, work: Path) -> tuple[Made, ScanState]:
        began = self._monotonic()
        self._report(f"{platform}: resolving and unpacking packages")
        lines = order.recipe.requirements.splitlines()
        constraints, free = requirements.constraints(requirements.installed(), lines, platform)
        wanted = Wanted(
            platform=platform,
            requirements=[*requirements.base(), *lines],
            own=lines,
            constraints=constraints,
            excluded=requirements.excluded(),
            builds=order.recipe.build_sdists,
        )
        directory, site = work / "tree", work / "tree/site-packages"
        site.mkdir(parents=True)
        (work / "uv").mkdir()
        uv = Uv(work / "uv", self._environ)
        uv.install(wanted, uv.lock(wanted), site)
        trim(site, platform, own_platform())
        check_names(site, self._limits)
        parts.add_parts(directory, self._limits)
        versions = {name: version for name, version in requirements.built_with().items() if name != "provider"}
        parts.write_about(directory, {"name": order.name, "python": platform.python, "env": dict(order.recipe.env), **versions})
        try:
            tree, state = scan(directory, limits=self._limits, ignored=())
        except (Unpublishable, Moved) as error:
            raise CannotBuild(f"its files can't travel: {error}") from None
        return Made(str(platform), tree, self._monotonic() - began, _others(site, free)), state

    def _publish(self, order: Order, made: Sequence[tuple[Made, ScanState]], failed: Mapping[str, CannotBuild]) -> Report:
        if not made:
            return Report(None, (), failed)
        for left in reversed(range(TRIES)):
            stored: list[Made] = []
            for one, state in made:
                self._report(f"{one.platform}: packing and storing the files that central lacks")
                files, size = self._storing.store(one.tree, state)
                stored.append(replace(one, stored_files=files, stored_bytes=size))
                self._report(describe(stored[-1]))
            try:
                serial = self._in_transaction(partial(self._add, order=order, made=stored, failed=failed))
            except (TreeGone, BlobsMissing):
                if not left:
                    raise
                continue
            return Report(serial, stored, failed)
        raise AssertionError("the last try returns or raises")

    def _add(self, session: Session, *, order: Order, made: Sequence[Made], failed: Collection[str]) -> int | None:
        """Publish what was made; return the serial. None: the newest editions have these trees and this recipe."""
        runtimes.next_serial(session, order.name)  # locks the row
        known, built_with = runtimes.get(session, order.name), requirements.built_with()
        if failed and not order.adds_only:
            built_with[FAILED] = ", ".join(sorted(failed))
        if known is not None and known.recipe == order.recipe and known.built_with == built_with:
            newest: dict[str, str] = {}
            for edition in known.editions:  # the newest first
                newest.setdefault(edition.platform, edition.tree)
            if all(newest.get(one.platform) == one.tree.digest for one in made):
                return None
        built = [Built(one.platform, one.tree.digest) for one in made]
        return runtimes.add(session, order.name, order.recipe, built, built_with=built_with, by=self._by)


def _others(site: Path, free: Iterable[requirements.Installed]) -> tuple[str, ...]:
    """Return those of *free* that have another version in the runtime."""
    versions: dict[str, str] = {}
    for info in site.glob("*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        versions[canonicalize_name(name)] = version
    return tuple(
        f"{package.name} {versions[package.name]} (central: {package.version})"
        for package in free
        if versions.get(package.name, package.version) != package.version
    )


def describe(made: Made) -> str:
    """Return a line for users."""
    size = f"files: {made.tree.files}, bytes: {made.tree.bytes}"
    stored = f"new files: {made.stored_files}, packed bytes: {made.stored_bytes}"
    return f"{made.platform}: tree {made.tree.digest[:12]} ({size}; {stored}; {made.took_s:.1f} s)"


@contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="airflow-runtime-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
