"""Builds a runtime: for each platform a directory, made from central's own versions and stored as a tree; together one serial."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from airflow_remote_protocol.platforms import Platform
from packaging.utils import canonicalize_name
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import runtimes
from airflow_remote_provider.ledger.runtimes import Built, Recipe, RuntimeRecord
from airflow_remote_provider.ledger.trees import RUNTIME
from airflow_remote_provider.packing.runtimes import parts, requirements
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.following import FAILED
from airflow_remote_provider.packing.runtimes.making import Made, Maker, Report, scan_made
from airflow_remote_provider.packing.runtimes.resolve import Wanted
from airflow_remote_provider.packing.runtimes.targets import own_platform, parse
from airflow_remote_provider.packing.scan import Limits, ScanState
from airflow_remote_provider.packing.storing import Transaction
from airflow_remote_provider.stores.blobs import BlobStore

PYTHON = re.compile(r"3\.[0-9]{1,2}\Z")


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
    ) -> None:
        """*who* names this process, and *by* the user, for users. *report* is called with lines about the progress."""
        self._by = by
        self._maker = Maker(store, RUNTIME, limits, who=who, report=report, environ=environ, in_transaction=in_transaction)

    def build(self, order: Order) -> Report:
        """Build an order, and publish it as a new serial. Raises: as :meth:`.Maker.build`."""
        return self._maker.build(order.platforms, partial(self._make, order), partial(self._add, order=order))

    def _make(self, order: Order, platform: Platform, work: Path) -> tuple[Made, ScanState]:
        began = self._maker.monotonic()
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
        directory = self._maker.unpack(wanted, work)
        parts.add_parts(directory, self._maker.limits)
        versions = {name: version for name, version in requirements.built_with().items() if name != "provider"}
        about = {"name": order.name, "python": platform.python, "env": dict(order.recipe.env), **versions}
        parts.write_about(directory / "runtime.json", about)
        tree, state = scan_made(directory, self._maker.limits)
        others = _others(directory / "site-packages", free)
        return Made(str(platform), tree, self._maker.monotonic() - began, others), state

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
