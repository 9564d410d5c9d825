"""Making releases of the worker with uv, from small wheels of the test's own, and from this repository's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from airflow_remote_protocol.packs import Encoding, decode_blob
from airflow_remote_protocol.platforms import Platform
from airflow_remote_protocol.trees import Tree
from airflow_remote_provider import __version__, compat
from airflow_remote_provider.ledger import trees
from airflow_remote_provider.ledger.releases import ReleaseRecord
from airflow_remote_provider.ledger.runtimes import Built, RuntimeEdition
from airflow_remote_provider.packing.releases import ReleaseBuilder, built_with, plan, with_wheels
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.making import Report
from airflow_remote_provider.packing.runtimes.targets import own_platform, parse
from airflow_remote_provider.packing.scan import Limits
from airflow_remote_provider.stores.blobs import Piece
from airflow_remote_provider.stores.blobs.database import DatabaseBlobs
from sqlalchemy.orm import Session

from testkit.versions import WORK

from .runtimes.conftest import Index

LIMITS = Limits(files=100, bytes=64 << 20, file_bytes=8 << 20)
LINUX, OTHER = "cp311-linux-gnu-x86_64", "cp310-linux-musl-aarch64"

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def wheels(tmp_path: Path) -> Index:
    """A directory with two versions of the worker, and what they need."""
    (tmp_path / "wheels").mkdir()
    index = Index(tmp_path / "wheels", tmp_path / "cache")
    for version in ("0.2.0", "0.3.0rc1"):
        requires = [f"airflow-remote-protocol=={version}", "httpx>=0.27", "tomli>=2; python_version < '3.11'"]
        index.add("airflow-remote-worker", version, requires=requires)
        index.add("airflow-remote-protocol", version)
    for name in ("httpx", "tomli"):
        index.add(name, "2.0")
    return index


Make = Callable[..., Report]


@pytest.fixture
def added() -> list[tuple[str, Sequence[Built]]]:
    """What the ledger was asked to add: versions and trees, the first one with serial 1."""
    return []


@pytest.fixture
def noted() -> list[Mapping[str, str]]:
    """What the ledger was asked to note about each serial."""
    return []


@pytest.fixture
def make(wheels: Index, added: list[tuple[str, Sequence[Built]]], noted: list[Mapping[str, str]]) -> Make:
    def add(session: Session, version: str, built: Sequence[Built], *, built_with: Mapping[str, str]) -> int:
        for one in built:
            tree = trees.load_tree(session, one.tree)
            assert tree is not None
            trees.finish_tree(session, tree)
        added.append((version, built))
        noted.append(built_with)
        return len(added)

    def make(version: str = "0.2.0", *platforms: str, is_whole: bool = False) -> Report:
        environ = {**wheels.environ, "UV_FIND_LINKS": ""}
        builder = ReleaseBuilder(DatabaseBlobs(), LIMITS, who="test", add=add, wheels=wheels.directory, environ=environ)
        return builder.build(replace(plan(version, platforms or (LINUX,), ()), is_whole=is_whole))

    return make


def content(tree: Tree, path: str) -> bytes:
    entry = tree.get(path)
    assert entry is not None, path
    with compat.transaction() as session:
        blob = trees.stored(session, [entry.sha256])[entry.sha256]
        (packed,) = DatabaseBlobs().read(session, [Piece(entry.sha256, blob.place, 0, blob.packed_size)])
    return decode_blob(Encoding(blob.encoding), packed, entry.size)


def packages(tree: Tree) -> set[str]:
    return {entry.path.split("/")[1] for entry in tree.entries if ".dist-info/" in entry.path}


def test_a_release_has_the_worker_and_what_it_needs_on_each_platform(make: Make, added: list[object]) -> None:
    report = make("0.2.0", LINUX, OTHER)
    assert (report.serial, dict(report.failed)) == (1, {})
    linux, other = report.made
    common = {f"airflow_remote_{name}-0.2.0.dist-info" for name in ("worker", "protocol")} | {"httpx-2.0.dist-info"}
    assert packages(linux.tree) == common
    assert packages(other.tree) == common | {"tomli-2.0.dist-info"}
    assert json.loads(content(linux.tree, "release.json")) == {"format": 1, "version": "0.2.0", "python": "3.11"}
    assert content(linux.tree, "site-packages/airflow_remote_worker/__init__.py") == b"version = '0.2.0'\n"
    assert added == [("0.2.0", [Built(LINUX, linux.tree.digest), Built(OTHER, other.tree.digest)])]


def test_the_same_version_is_the_same_tree(make: Make) -> None:
    first, second = make(), make()
    assert [one.tree.digest for one in first.made] == [one.tree.digest for one in second.made]
    assert second.made[0].stored_files == 0


def test_a_pre_release_is_taken_when_it_is_named(make: Make) -> None:
    assert "airflow_remote_protocol-0.3.0rc1.dist-info" in packages(make("0.3.0-rc1").made[0].tree)


def test_a_version_that_the_index_does_not_have_is_named(make: Make, added: list[object]) -> None:
    report = make("0.9.0")
    assert str(report.failed[LINUX]).startswith("the package index has no airflow-remote-worker==0.9.0,")
    assert "--wheels" in str(report.failed[LINUX])
    assert (report.serial, added) == (None, [])


def test_a_package_that_the_index_does_not_have_is_named(make: Make, wheels: Index) -> None:
    next(wheels.directory.glob("httpx-*")).unlink()
    text = str(make().failed[LINUX])
    assert text.startswith("the package index has no httpx; check the name, or name a directory that has its wheel (--wheels)")


def test_sources_are_not_built(make: Make, wheels: Index) -> None:
    next(wheels.directory.glob("httpx-*")).unlink()
    wheels.add_sources("httpx", "2.0")
    text = str(make().failed[LINUX])
    assert text.startswith(f"httpx has no wheel for {LINUX}.")
    assert "--wheels" in text and "--build" not in text


def test_a_platform_that_fails_does_not_keep_the_others_from_being_added(make: Make, wheels: Index) -> None:
    next(wheels.directory.glob("tomli-*")).unlink()
    report = make("0.2.0", LINUX, OTHER)
    assert (report.serial, [one.platform for one in report.made], list(report.failed)) == (1, [LINUX], [OTHER])


def test_a_platform_that_fails_is_noted_so_that_it_is_tried_again_but_not_if_a_user_chose(
    make: Make, wheels: Index, noted: list[Mapping[str, str]]
) -> None:
    next(wheels.directory.glob("tomli-*")).unlink()
    make("0.2.0", LINUX, OTHER, is_whole=True)
    make("0.2.0", LINUX, OTHER)
    assert noted == [{"provider": __version__, "failed": OTHER}, {"provider": __version__}]


def test_a_platform_is_added_to_the_newest_release_only_if_it_is_the_same_version_for_it_alone() -> None:
    edition = RuntimeEdition(1, LINUX, "a" * 64, 1, 1, datetime(2026, 12, 1, tzinfo=timezone.utc))
    known = ReleaseRecord(1, 1, "ann", True, built_with(), {"a" * 64: "0.2.0"}, (edition,))
    assert plan("0.2.0", (OTHER,), (), known).adds_only
    assert not plan("0.2.0", (OTHER, LINUX), (), known).adds_only
    assert not plan("0.3.0", (OTHER,), (), known).adds_only
    assert not plan("0.2.0", (OTHER,), (), replace(known, built_with={"provider": "0.0.1"})).adds_only
    assert not plan("0.2.0", (OTHER,), ()).adds_only
    assert (plan(None, None, (LINUX,)).is_whole, plan(None, (LINUX,), ()).is_whole) == (True, False)


def test_the_version_of_the_provider_and_the_platforms_of_the_fleet_are_the_default() -> None:
    assert plan(None, None, ()).version == __version__
    assert plan(None, None, ()).platforms == (str(own_platform()),)
    assert plan(None, None, {OTHER: 1, LINUX: 2, "cp311-linux-gnu-sparc": 1, "cp312-windows-x86_64": 1}).platforms == (
        OTHER,
        LINUX,
    )
    assert plan("0.2", ("cp312-macos-arm64", "cp312-macos-aarch64"), ()).platforms == ("cp312-macos-aarch64",)


@pytest.mark.parametrize(
    ("version", "platform", "text"),
    [
        ("latest", LINUX, "'latest' is not a version such as"),
        ("0.2.0", "vax", "'vax' is not a platform such as"),
        ("0.2.0", "cp312-windows-x86_64", "cp312-windows-x86_64: workers on Windows take no releases"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_done(version: str, platform: str, text: str) -> None:
    with pytest.raises(CannotBuild) as refused:
        plan(version, (platform,), ())
    assert str(refused.value).startswith(text)


def test_a_directory_without_wheels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotBuild, match="has no wheels; put airflow-remote-worker and"):
        with_wheels({}, tmp_path)
    with pytest.raises(CannotBuild, match="can't be read: No such file or directory"):
        with_wheels({}, tmp_path / "none")


@pytest.mark.index
@pytest.mark.parametrize("platform", [own_platform(), parse("cp310-linux-musl-aarch64")], ids=str)
def test_the_worker_of_this_repository_is_small_and_always_the_same_tree(platform: Platform, tmp_path: Path) -> None:
    built = WORK / "wheels"
    (version,) = (path.name.split("-")[1] for path in built.glob("airflow_remote_worker-*.whl"))
    builder = ReleaseBuilder(
        DatabaseBlobs(), replace(LIMITS, files=10_000), who="test", add=lambda *_, **__: None, wheels=built, environ=os.environ
    )
    made = [builder._make(version, platform, tmp_path / name)[0] for name in ("one", "two")]
    assert made[0].tree.digest == made[1].tree.digest
    assert made[0].tree.bytes < 12e6
    paths = {entry.path for entry in made[0].tree.entries}
    assert {"release.json", "site-packages/airflow_remote_worker/__main__.py"} <= paths
    assert not [path for path in paths if path.startswith("site-packages/airflow_remote_worker/testing/")]
