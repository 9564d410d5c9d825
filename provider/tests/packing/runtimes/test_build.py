"""Building a runtime with uv from wheels of the test's own: what is in its tree, what is published, how failures are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from airflow_remote_protocol.packs import Encoding, decode_blob
from airflow_remote_protocol.trees import Tree
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import runtimes, trees
from airflow_remote_provider.ledger.runtimes import Recipe, RuntimeRecord
from airflow_remote_provider.packing.runtimes import build, requirements
from airflow_remote_provider.packing.runtimes.build import Builder, Change, plan
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.making import Report
from airflow_remote_provider.packing.runtimes.targets import own_platform
from airflow_remote_provider.packing.scan import Limits
from airflow_remote_provider.stores.blobs import Piece
from airflow_remote_provider.stores.blobs.database import DatabaseBlobs

from .conftest import Index

LIMITS = Limits(files=100, bytes=10 << 20, file_bytes=1 << 20)
LINUX, WINDOWS = "cp311-linux-gnu-x86_64", "cp312-windows-x86_64"

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def make(index: Index) -> Callable[..., Report]:
    """Build the runtime `default` as a user asks."""

    def make(name: str = "default", **change: object) -> Report:
        order = compat.in_transaction(lambda session: plan(session, name, Change(**change)))  # type: ignore[arg-type]
        return Builder(DatabaseBlobs(), LIMITS, who="test", by="ann", environ=index.environ).build(order)

    return make


def record(name: str = "default") -> RuntimeRecord:
    with compat.transaction() as session:
        found = runtimes.get(session, name)
    assert found is not None
    return found


def content(tree: Tree, path: str) -> bytes:
    entry = tree.get(path)
    assert entry is not None, path
    with compat.transaction() as session:
        blob = trees.stored(session, [entry.sha256])[entry.sha256]
        (packed,) = DatabaseBlobs().read(session, [Piece(entry.sha256, blob.place, 0, blob.packed_size)])
    return decode_blob(Encoding(blob.encoding), packed, entry.size)


def packages(tree: Tree) -> set[str]:
    return {entry.path.split("/")[1] for entry in tree.entries if ".dist-info/" in entry.path}


def test_a_runtime_has_centrals_versions_and_not_what_tasks_never_use(make: Callable[..., Report], index: Index) -> None:
    report = make(platforms=(LINUX,))
    (made,) = report.made
    paths = {entry.path for entry in made.tree.entries}
    core = index.installed["apache-airflow-core"]
    assert packages(made.tree) == {
        f"apache_airflow_core-{core}.dist-info",
        f"apache_airflow_task_sdk-{index.installed['apache-airflow-task-sdk']}.dist-info",
        "apache_airflow_providers_standard-1.0.dist-info",
        "apache_airflow_providers_docker-1.0.dist-info",
        "click-8.1.dist-info",
        "opentelemetry_sdk-1.0.dist-info",
        "greenback-1.0.dist-info",
    }
    assert {path for path in paths if path.startswith("site-packages/airflow/")} == {
        "site-packages/airflow/__init__.py",
        "site-packages/airflow/example_dags/__init__.py",
        "site-packages/airflow/models/__init__.py",
        "site-packages/airflow/providers/docker/__init__.py",
        "site-packages/airflow/providers/standard/__init__.py",
        "site-packages/airflow/sdk/__init__.py",
    }
    assert not [path for path in paths if "/bin/" in path or path.endswith((".pyc", "/INSTALLER", "/REQUESTED", "/.lock"))]
    assert content(made.tree, "site-packages/click-8.1.dist-info/RECORD") == (
        b"click-8.1.dist-info/METADATA,,\nclick-8.1.dist-info/RECORD,,\nclick-8.1.dist-info/WHEEL,,\nclick/__init__.py,,\n"
    )
    assert json.loads(content(made.tree, "runtime.json")) == {
        "format": 1,
        "name": "default",
        "python": "3.11",
        "env": {},
        "airflow": core,
        "task_sdk": index.installed["apache-airflow-task-sdk"],
    }


def test_the_first_build_is_published_and_rolled_out(make: Callable[..., Report]) -> None:
    report = make(platforms=(LINUX, WINDOWS), env={"TZ": "UTC"})
    assert (report.serial, set(report.failed)) == (1, set())
    found = record()
    assert (found.serial, found.percent, found.updated_by) == (1, 100, "ann")
    assert found.recipe == Recipe(platforms=(LINUX, WINDOWS), env={"TZ": "UTC"})
    assert {edition.platform: edition.tree for edition in found.editions} == {
        made.platform: made.tree.digest for made in report.made
    }
    assert found.built_with == requirements.built_with()


def test_the_same_inputs_make_the_same_tree_and_no_new_serial(make: Callable[..., Report]) -> None:
    first = make(platforms=(LINUX,))
    again = make()
    assert [made.tree.digest for made in again.made] == [made.tree.digest for made in first.made]
    assert (again.serial, again.made[0].stored_files, record().built) == (None, 0, 1)


def test_without_options_the_stored_recipe_is_built(make: Callable[..., Report], index: Index) -> None:
    index.add("extra")
    make(platforms=(LINUX,), requirements="extra  # for reports\n", env={"TZ": "UTC"}, follow=False)
    index.add("greenback", "2.0")
    report = make()
    assert report.serial == 2
    assert {"extra-1.0.dist-info", "greenback-2.0.dist-info"} <= packages(report.made[0].tree)
    assert record().recipe == Recipe("extra", (LINUX,), {"TZ": "UTC"}, follow=False)
    assert (record().serial, record().built) == (1, 2)  # a later build waits until it is rolled out


def test_a_requirement_is_added_with_all_that_it_needs(make: Callable[..., Report], index: Index) -> None:
    index.add("reports", requires=["fastapi"])
    assert "fastapi-1.0.dist-info" in packages(make(platforms=(LINUX,), requirements="reports").made[0].tree)


def test_a_requirement_counts_more_than_centrals_version(make: Callable[..., Report]) -> None:
    report = make(platforms=(LINUX,), requirements="click>=9")
    assert "click-9.0.dist-info" in packages(report.made[0].tree)
    assert report.made[0].others == ("click 9.0 (central: 8.1)",)


def test_plugins_and_local_settings_of_central_are_part_of_it(
    make: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins, settings = tmp_path / "plugins", tmp_path / "config/airflow_local_settings.py"
    (plugins / "__pycache__").mkdir(parents=True)
    (plugins / "__pycache__/a.pyc").write_text("")
    (plugins / "a.py").write_text("plugin = 1\n")
    settings.parent.mkdir()
    settings.write_text("policy = 1\n")
    (settings.parent / "secret.cfg").write_text("password")
    monkeypatch.setattr(compat, "local_settings_place", lambda: settings)
    tree = make(platforms=(LINUX,)).made[0].tree
    others = {entry.path for entry in tree.entries if not entry.path.startswith("site-packages/")}
    assert others == {"runtime.json", "plugins/a.py", "config/airflow_local_settings.py"}
    assert content(tree, "config/airflow_local_settings.py") == b"policy = 1\n"


def test_a_platform_that_fails_does_not_keep_the_others_from_being_published(make: Callable[..., Report], index: Index) -> None:
    index.add("native", tag="cp311-cp311-manylinux_2_28_x86_64")
    report = make(platforms=(LINUX, WINDOWS), requirements="native")
    assert (report.serial, [made.platform for made in report.made], list(report.failed)) == (1, [LINUX], [WINDOWS])
    assert str(report.failed[WINDOWS]).startswith(f"native has no wheel for {WINDOWS}. Require a version that has one")
    assert record().built_with == {**requirements.built_with(), "failed": WINDOWS}  # so that following repeats it


def test_if_every_platform_fails_nothing_changes(make: Callable[..., Report]) -> None:
    report = make(platforms=(LINUX,), requirements="nowhere")
    assert (report.serial, report.made) == (None, ())
    assert (
        str(report.failed[LINUX])
        == "the package index has no nowhere; check the name, or configure the index that has it (UV_INDEX)"
    )
    with compat.transaction() as session:
        assert runtimes.get(session, "default") is None


def test_sources_are_built_only_on_request(make: Callable[..., Report], index: Index) -> None:
    index.add_sources("sources-only")
    refused = make(platforms=(WINDOWS,), requirements="sources-only").failed[WINDOWS]
    assert str(refused).startswith(f"sources-only has no wheel for {WINDOWS}.")
    assert "--build" in str(refused)
    built = make(platforms=(WINDOWS,), requirements="sources-only", build_sdists=True)  # a pure one suits every platform
    assert "sources_only-1.0.dist-info" in packages(built.made[0].tree)


def test_a_new_platform_is_added_without_building_the_others(make: Callable[..., Report]) -> None:
    make(platforms=(LINUX,))
    report = make(platforms=(WINDOWS,))
    assert (report.serial, [made.platform for made in report.made]) == (2, [WINDOWS])
    assert record().recipe.platforms == (LINUX, WINDOWS)
    assert [made.platform for made in make(platforms=(WINDOWS,), env={"A": "1"}).made] == [
        LINUX,
        WINDOWS,
    ]  # the others change, too


def test_a_runtime_that_was_built_with_other_versions_is_built_for_all_platforms(
    make: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = requirements.built_with()
    make(platforms=(LINUX,))
    monkeypatch.setattr(requirements, "built_with", lambda: {**versions, "provider": "9"})
    assert [made.platform for made in make(platforms=(WINDOWS,)).made] == [LINUX, WINDOWS]


def test_what_the_collection_took_meanwhile_is_stored_again(make: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    add, tries = runtimes.add, []

    def lose_once(*args: object, **options: object) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise trees.TreeGone("gone")
        return add(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(runtimes, "add", lose_once)
    assert (make(platforms=(LINUX,)).serial, len(tries)) == (1, 2)


# What is planned


def planned(**change: object) -> build.Order:
    return compat.in_transaction(lambda session: plan(session, "default", Change(**change)))  # type: ignore[arg-type]


def test_without_platforms_those_of_the_fleet_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned().platforms == (str(own_platform()),)
    monkeypatch.setattr(runtimes, "fleet_platforms", lambda session: {WINDOWS: 3, LINUX: 1})
    assert planned().platforms == (LINUX, WINDOWS)
    assert planned().recipe.platforms == ()  # so that a platform that joins later is built, too
    assert planned(pythons=("3.12", "3.13")).platforms == (
        "cp312-linux-gnu-x86_64",
        "cp313-linux-gnu-x86_64",
        "cp312-windows-x86_64",
        "cp313-windows-x86_64",
    )
    assert planned(platforms=("macos-arm64",), pythons=("3.13",)).platforms == ("cp313-macos-aarch64",)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"platforms": ("cp311-linux-gnu-sparc",)},
            "nothing can be built for the platform cp311-linux-gnu-sparc; the known",
        ),
        ({"platforms": ("linux",)}, "'linux' is not a platform such as cp311-linux-gnu-x86_64"),
        ({"pythons": ("4",)}, "'4' is not a version of Python such as 3.12"),
        ({"env": {"AIRFLOW_CONN_DB": "x"}}, "AIRFLOW_CONN_DB looks like a secret"),
        ({"requirements": "-r other.txt"}, "line 1 of the requirements has options"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_done(change: dict[str, object], text: str) -> None:
    with pytest.raises(CannotBuild) as refused:
        planned(**change)
    assert str(refused.value).startswith(text)


def test_limits_of_trees_hold(index: Index) -> None:
    order = replace(planned(platforms=(LINUX,)), recipe=Recipe(platforms=(LINUX,)))
    builder = Builder(DatabaseBlobs(), replace(LIMITS, file_bytes=5), who="test", by="ann", environ=index.environ)
    (failure,) = builder.build(order).failed.values()
    assert "raise [remote] blob_bytes, which allows 5, in Airflow's configuration" in str(failure)
