"""Publishing: what central stores of a directory, that only differences are stored, and what users read when it fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_protocol.packs import Encoding, decode_blob
from airflow_remote_protocol.trees import Tree
from airflow_remote_provider import compat
from airflow_remote_provider.compat import bundle_sources
from airflow_remote_provider.ledger import bundles, trees
from airflow_remote_provider.models import BundleRow, Edition
from airflow_remote_provider.packing import publish as publishing
from airflow_remote_provider.packing.publish import Outcome, Publisher, Result
from airflow_remote_provider.stores.blobs import Piece
from airflow_remote_provider.stores.blobs.database import DatabaseBlobs
from airflow_remote_provider.stores.blobs.files import FileBlobs
from sqlalchemy import select

from testkit.ledger import change_job, job_row, queued, substitute

from .conftest import LIMITS, row


def make_publisher(**options: Any) -> Publisher:
    return Publisher(bundle_sources(), options.pop("store", DatabaseBlobs()), LIMITS, who="test", **options)


def newest(name: str = "dags") -> Tree:
    with compat.transaction() as session:
        tree = trees.load_tree(session, row(name).tree or "")
    assert tree is not None
    return tree


def content_of(path: str, tree: Tree) -> bytes:
    entry = tree.get(path)
    assert entry is not None
    store = DatabaseBlobs()
    with compat.transaction() as session:
        blob = trees.stored(session, [entry.sha256])[entry.sha256]
        (packed,) = store.read(session, [Piece(entry.sha256, blob.place, 0, blob.packed_size)])
    return decode_blob(Encoding(blob.encoding), packed, entry.size)


def test_a_bundle_is_published_with_every_file(dags: Path) -> None:
    outcome = make_publisher().publish("dags")
    assert (outcome.what, outcome.stored_files, outcome.trouble) == (Result.PUBLISHED, 2, "")
    tree = newest()
    assert tree.digest == outcome.tree.digest if outcome.tree else False
    assert content_of("helpers.py", tree) == b"two = 2\n"
    assert (row().publisher, row().versioned, row().trouble) == ("test", False, "")


def test_an_unchanged_bundle_costs_no_statement(dags: Path) -> None:
    publisher = make_publisher()
    publisher.publish("dags")
    calls: list[object] = []
    publisher._in_transaction = lambda verb: calls.append(verb)  # type: ignore[assignment,return-value,func-returns-value]
    assert publisher.publish("dags").what is Result.UNCHANGED
    assert calls == []


def test_only_the_changed_file_is_stored(dags: Path) -> None:
    publisher = make_publisher()
    before = publisher.publish("dags").tree
    (dags / "helpers.py").write_text("two = 3\n")
    outcome = publisher.publish("dags")
    assert (outcome.what, outcome.stored_files) == (Result.PUBLISHED, 1)
    assert outcome.stored_bytes <= 8
    assert before is not None
    assert newest().digest != before.digest
    with compat.transaction() as session:
        assert [one.tree for one in bundles.newest_trees(session, "dags", most=5)] == [newest().digest, before.digest]


def test_another_process_with_the_same_files_stores_nothing(dags: Path) -> None:
    first = make_publisher().publish("dags")
    again = make_publisher().publish("dags")
    assert (again.what, again.stored_files) == (Result.PUBLISHED, 0)
    assert again.tree == first.tree or (again.tree and first.tree and again.tree.digest == first.tree.digest)
    with compat.transaction() as session:
        assert len(bundles.newest_trees(session, "dags", most=5)) == 1


def test_the_time_of_the_scan_is_that_of_its_beginning(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with compat.transaction() as session:
        before = compat.database_now(session)
    scan, between = publishing.scan, []

    def slow(*args: Any, **options: Any) -> Any:
        found = scan(*args, **options)
        with compat.transaction() as session:
            between.append(compat.database_now(session))
        return found

    monkeypatch.setattr(publishing, "scan", slow)
    make_publisher().publish("dags")
    scanned_at = row().scanned_at
    assert scanned_at is not None
    assert before - timedelta(seconds=10) < scanned_at <= between[0]  # rather earlier than later, by what a statement takes


def test_files_go_into_the_store_that_is_configured(dags: Path, tmp_path: Path) -> None:
    make_publisher(store=FileBlobs(f"file://{tmp_path}/blobs")).publish("dags")
    entry = newest().get("helpers.py")
    assert entry is not None
    with compat.transaction() as session:
        place = trees.stored(session, [entry.sha256])[entry.sha256].place
    assert (tmp_path / "blobs" / place).read_bytes() == b"two = 2\n"


def test_a_store_that_fails_is_named_and_the_last_tree_stays(dags: Path) -> None:
    publisher = make_publisher()
    publisher.publish("dags")
    good = row().tree

    class Full(DatabaseBlobs):
        def put(self, *args: Any) -> str:
            raise OSError(28, "No space left on device")

    publisher._blobs._store = Full()
    (dags / "helpers.py").write_text("new")
    outcome = publisher.publish("dags")
    assert (outcome.what, outcome.trouble) == (Result.FAILED, "[Errno 28] No space left on device")
    assert (row().tree, row().trouble) == (good, "[Errno 28] No space left on device")
    publisher._blobs._store = DatabaseBlobs()
    assert publisher.publish("dags").what is Result.PUBLISHED
    assert (row().tree != good, row().trouble) == (True, "")


def test_what_cannot_travel_is_named_and_the_last_tree_stays(dags: Path, caplog: pytest.LogCaptureFixture) -> None:
    publisher = make_publisher()
    publisher.publish("dags")
    good = row().tree
    os.mkfifo(dags / "pipe")
    for _ in range(2):
        assert publisher.publish("dags").what is Result.FAILED
    assert row().tree == good
    assert row().trouble == "pipe is a named pipe, which can't travel; remove it, or name it in .remoteignore"
    assert caplog.text.count("The Dag bundle 'dags' can't be published: pipe is a named pipe") == 1


def test_a_directory_that_disappears_is_named(dags: Path) -> None:
    publisher = make_publisher()
    publisher.publish("dags")
    dags.rename(dags.parent / "elsewhere")
    assert "No such file or directory" in publisher.publish("dags").trouble
    assert row().tree is not None


def during_storing(publisher: Publisher, monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Call *change* once, between the scan and the reading of what central lacks."""
    left = [change]
    begin = trees.begin_tree

    def changed(*args: Any) -> None:
        begin(*args)
        if left:
            left.pop()()

    monkeypatch.setattr(trees, "begin_tree", changed)


def test_a_file_that_changes_between_scan_and_storing_is_scanned_again(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = make_publisher()
    during_storing(publisher, monkeypatch, lambda: (dags / "helpers.py").write_text("two = 4\n") and None)
    assert publisher.publish("dags").what is Result.PUBLISHED
    assert content_of("helpers.py", newest()) == b"two = 4\n"


def test_a_tree_that_the_collection_took_is_begun_again(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = make_publisher()
    put, gone = publisher._blobs._put, []

    def put_and_lose(batch: Any) -> None:
        put(batch)
        if not gone:
            gone.append(True)
            with compat.transaction() as session:
                for blob in batch:
                    place = trees.stored(session, [blob.sha256])[blob.sha256].place
                    trees.unfinish_tree(session, "", blob=(blob.sha256, place))

    monkeypatch.setattr(publisher._blobs, "_put", put_and_lose)
    assert publisher.publish("dags").what is Result.PUBLISHED
    assert content_of("helpers.py", newest()) == b"two = 2\n"


def test_files_that_always_change_are_named_although_it_is_published(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = publishing.scan

    def restless(*args: Any, **options: Any) -> Any:
        tree, state = scan(*args, **options)
        return tree, publishing.ScanState(state.root, state.rules, state.seen, state.tree, ("app.log",))

    monkeypatch.setattr(publishing, "scan", restless)
    publisher = make_publisher()
    assert publisher.publish("dags").what is Result.PUBLISHED
    assert row().trouble.startswith("it is published, but these files change all the time: app.log;")


def test_a_directory_without_the_dag_files_that_airflow_parsed_is_left_to_others(
    dags: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = make_publisher(has_to_match=True)
    substitute(monkeypatch, "parsed_dag_files", lambda session, name: ["other.py", "packed.zip/dag.py"])
    assert publisher.publish("dags").what is Result.NOT_HERE
    with compat.transaction() as session:
        assert session.get(BundleRow, "dags") is None
    (dags / "packed.zip").write_bytes(b"PK")
    assert publisher.publish("dags").what is Result.PUBLISHED


def test_an_empty_directory_is_not_published_by_itself(dags: Path) -> None:
    for file in dags.iterdir():
        file.unlink()
    assert make_publisher(has_to_match=True).publish("dags").what is Result.EMPTY
    assert make_publisher().publish("dags").what is Result.PUBLISHED


# Versions


def editions(name: str = "git") -> dict[str, tuple[str | None, str]]:
    with compat.transaction() as session:
        found = session.scalars(select(Edition).where(Edition.name == name))
        return {edition.version: (edition.tree, edition.trouble) for edition in found}


def test_a_bundle_with_versions_is_published_at_its_present_one(dags: Path) -> None:
    outcome = make_publisher().publish("git")
    assert (outcome.version, outcome.what) == ("v2", Result.PUBLISHED)
    assert content_of("dag.py", newest("git")) == b"# v2\n"
    assert row("git").versioned
    assert list(editions()) == ["v2"]


def test_a_new_version_is_found_at_the_next_attempt(dags: Path, tmp_path: Path) -> None:
    publisher = make_publisher()
    publisher.publish("git")
    (tmp_path / "repository/now").write_text("v1")
    assert publisher.publish("git").version == "v1"
    assert sorted(editions()) == ["v1", "v2"]


def test_an_older_version_that_jobs_need_does_not_become_the_newest(dags: Path) -> None:
    publisher = make_publisher()
    publisher.publish("git")
    outcome = publisher.publish_version("git", "v1")
    assert (outcome.what, outcome.version) == (Result.PUBLISHED, "v1")
    assert content_of("dag.py", newest("git")) == b"# v2\n"
    assert outcome.tree is not None
    assert editions()["v1"] == (outcome.tree.digest, "")


def test_a_version_that_is_gone_fails_the_jobs_that_wait_for_it(dags: Path) -> None:
    job = queued(bundle="git")
    change_job(job.job_id, bundle_version="v0", code_waits=True)
    with compat.transaction() as session:
        bundles.want_version(session, "git", "v0")
    outcome = make_publisher().publish_version("git", "v0")
    assert outcome.what is Result.FAILED
    assert job_row(job.job_id).state == "failed"
    assert job_row(job.job_id).reason == (
        "version v0 of the Dag bundle 'git' can't be published: could not make version v0 of the bundle 'git': "
        "RuntimeError: Version v0 not found in the repository"
    )


def test_a_repository_that_does_not_answer_fails_no_job_and_shows_no_credential(dags: Path, tmp_path: Path) -> None:
    job = queued(bundle="git")
    change_job(job.job_id, bundle_version="v1", code_waits=True)
    (tmp_path / "repository").rename(tmp_path / "away")
    assert make_publisher().publish_version("git", "v1").what is Result.FAILED
    assert job_row(job.job_id).state == "queued"
    assert row("git").trouble == (
        "version v1: could not make version v1 of the bundle 'git': RuntimeError: Error cloning repository; "
        "OSError: could not read from https://…@git.example/dags"
    )


# Parts


def test_an_outcome_says_when_its_scan_began(dags: Path) -> None:
    ticks = iter(range(100))
    outcome: Outcome = make_publisher(monotonic=lambda: float(next(ticks))).publish("dags")
    assert outcome.began == 0.0
