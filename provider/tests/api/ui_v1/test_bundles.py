"""Dag bundles over REST: who publishes, how fresh they are, which workers hold them, and the request to publish one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from testkit.ledger import audit_entries, change_job, change_worker, enlist, queued, substitute  # isort: skip

from airflow_remote_protocol.packs import Encoding
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_provider import compat
from airflow_remote_provider.compat import KnownBundle
from airflow_remote_provider.ledger import bundles, publishing, trees
from airflow_remote_provider.ledger.bundles import PublishedBundle
from airflow_remote_provider.ledger.trees import BUNDLE, NewBlob

if TYPE_CHECKING:
    from .conftest import Users


def published(name: str, number: int, version: str | None = None) -> str:
    """Publish a tree of one file; return its digest."""
    sha256 = f"{number:064x}"
    tree = Tree.of([Entry("dag.py", sha256, number)])
    with compat.transaction() as session:
        trees.begin_tree(session, tree, BUNDLE, "test")
        trees.add_blobs(session, [NewBlob(sha256, number, Encoding.RAW, number, f"place-{number}")])
        bundles.publish(session, PublishedBundle(name, version, tree, compat.database_now(session), "publisher on host"))
    return tree.digest


@pytest.fixture(autouse=True)
def _known(database: object, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [KnownBundle("plant", frozenset()), KnownBundle("secret", frozenset({"red"}))]
    substitute(monkeypatch, "known_bundles", lambda session: known)


def test_bundles_are_listed_with_what_is_known_of_them(users: Users) -> None:
    with compat.transaction() as session:
        bundles.note_trouble(session, "secret", "pipe is a named pipe", publisher="p")
    digest = published("dags/main", 7, "c0ffee")
    with compat.transaction() as session:
        publishing.assign(session, ["dags/main"], "holder", lasts=timedelta(seconds=30))
    change_worker(enlist("edge").id, inventory=[digest])
    change_worker(enlist("far").id, inventory=["0" * 64])
    change_job(queued(bundle="dags/main").job_id, code_waits=True)
    main, plant, secret = users.ann.ok("GET", "/bundles")["items"]
    assert (main["name"], main["tree"], main["version"], main["files"], main["bytes"]) == ("dags/main", digest, "c0ffee", 1, 7)
    assert (main["publisher"], main["is_publishing"], main["workers"], main["waiting"]) == ("publisher on host", True, 1, 1)
    assert (plant["name"], plant["tree"], plant["is_publishing"], plant["trouble"]) == ("plant", None, False, "")
    assert (secret["name"], secret["teams"], secret["trouble"]) == ("secret", ["red"], "pipe is a named pipe")


def test_a_bundle_is_shown_with_its_history_and_the_workers_that_hold_it(users: Users) -> None:
    old, new = published("dags/main", 1), published("dags/main", 2)
    with compat.transaction() as session:
        bundles.want_version(session, "dags/main", "v9")
    for name, inventory in (("edge", [old, new]), ("far", [old]), ("bare", [])):
        change_worker(enlist(name).id, inventory=inventory)
    change_job(queued(bundle="dags/main").job_id, tree=old)
    shown = users.vic.ok("GET", "/bundles/dags/main")
    assert shown["about"]["tree"] == new
    editions = [(one["version"], one["tree"], one["workers"], one["jobs"]) for one in shown["editions"]]
    assert editions == [("v9", None, 0, 0), ("", new, 1, 0), ("", old, 2, 1)]
    assert shown["editions"][0]["wanted_at"] is not None
    holders = [(one["worker"], one["tree"], one["is_newest"]) for one in shown["holders"]]
    assert holders == [("edge", new, True), ("far", old, False)]


def test_a_bundle_that_does_not_exist_is_named(users: Users) -> None:
    answer = users.vic.get("/bundles/none")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no Dag bundle 'none'; `airflow remote bundles list` shows all bundles"


def test_a_request_to_publish_is_noted_and_audited(users: Users) -> None:
    published("dags/main", 1)
    asked = users.ann.ok("POST", "/bundles/dags/main/publish", 202)
    assert asked["wanted_at"] is not None
    assert [entry.detail for entry in audit_entries("action")] == ["asked to publish the Dag bundle dags/main"]
    assert users.vic("POST", "/bundles/dags/main/publish").status_code == 403
    assert users.ann("POST", "/bundles/none/publish").status_code == 404
