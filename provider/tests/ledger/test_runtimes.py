"""Runtimes that central sends: names, serials, recipes and editions."""

from __future__ import annotations

import pytest

from testkit.ledger import audit_entries, change_worker, enlist  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import runtimes
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.runtimes import Built, Recipe
from airflow_remote_provider.ledger.trees import BlobsMissing, TreeGone

from testkit.runtimes import LINUX, WINDOWS, build, stored_tree

pytestmark = pytest.mark.usefixtures("database")

RECIPE = Recipe("pandas==2.3.1\n", (LINUX,), {"TZ": "UTC"}, follow=False)


def _get(name: str = "default") -> runtimes.RuntimeRecord:
    with compat.transaction() as session:
        record = runtimes.get(session, name)
    assert record is not None
    return record


def test_the_first_build_of_a_name_is_rolled_out_at_once_and_later_ones_wait() -> None:
    tree = stored_tree("one")
    with compat.transaction() as session:
        assert runtimes.next_serial(session, "default") == 1
        serial = runtimes.add(session, "default", RECIPE, [Built(LINUX, tree)], built_with={"airflow": "3.3.2"}, by="ann")
    assert serial == 1
    record = _get()
    assert (record.serial, record.previous, record.built, record.percent, record.halted) == (1, 0, 1, 100, "")
    assert record.recipe == RECIPE
    assert (record.built_with, record.updated_by) == ({"airflow": "3.3.2"}, "ann")
    assert [(one.serial, one.platform, one.tree, one.files) for one in record.editions] == [(1, LINUX, tree, 1)]
    assert build("default", LINUX, WINDOWS) == 2
    record = _get()
    assert (record.serial, record.built) == (1, 2)
    assert sorted(record.platforms_of(2)) == [LINUX, WINDOWS]
    assert [entry.detail for entry in audit_entries("action")][::-1] == [
        f"built serial 1 of the runtime default for {LINUX}",
        f"built serial 2 of the runtime default for {LINUX}, {WINDOWS}",
    ]


def test_a_tree_that_was_not_begun_or_lacks_blobs_is_no_edition() -> None:
    for digest, error in (("0" * 64, TreeGone), (stored_tree("x", with_blobs=False), BlobsMissing)):
        with pytest.raises(error), compat.transaction() as session:
            runtimes.add(session, "default", RECIPE, [Built(LINUX, digest)], built_with={}, by="ann")
    with compat.transaction() as session:
        assert runtimes.get(session, "default") is None


@pytest.mark.parametrize("name", ["", "Default", "a/b", ".x", "x" * 64, "a b", "ü", "a\n"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(LedgerError, match="not a valid name of a runtime"), compat.transaction() as session:
        runtimes.next_serial(session, name)


@pytest.mark.parametrize(
    ("platforms", "text"),
    [
        ([], "nothing was built"),
        (["linux"], "is not a platform such as"),
        (["cp311-linux-gnu-amd64"], "write cp311-linux-gnu-x86_64"),
        ([LINUX, LINUX], "twice"),
    ],
)
def test_bad_platforms_are_refused(platforms: list[str], text: str) -> None:
    tree = stored_tree("one")
    with pytest.raises(LedgerError, match=text), compat.transaction() as session:
        runtimes.add(session, "default", RECIPE, [Built(one, tree) for one in platforms], built_with={}, by="ann")


def test_the_platforms_of_the_fleet_are_those_of_workers_that_take_runtimes() -> None:
    for name in ("a", "b", "gone", "site"):
        worker = enlist(name, capabilities=("task",) if name == "site" else ("task", "runtimes"), platform=LINUX)
        if name == "gone":
            change_worker(worker.id, removed_at=compat_now())
    enlist("c", capabilities=("task", "runtimes"), platform=WINDOWS)
    with compat.transaction() as session:
        assert runtimes.fleet_platforms(session) == {LINUX: 2, WINDOWS: 1}


def compat_now() -> object:
    with compat.transaction() as session:
        return compat.database_now(session)


def test_a_recipe_can_be_changed_without_a_build_and_a_new_field_has_its_default() -> None:
    with compat.transaction() as session:
        runtimes.set_recipe(session, "default", RECIPE, by="bob")
        runtimes.lock(session, "default").recipe = {"requirements": "x", "unknown": 1}
    assert _get().recipe == Recipe("x")
    assert _get().updated_by == "bob"


def test_an_unknown_name_says_how_to_make_one() -> None:
    with pytest.raises(NotFound, match="airflow remote runtimes build nope"), compat.transaction() as session:
        runtimes.must_lock(session, "nope")
