"""Dag bundles: which tree is the newest, which versions are wanted, and which jobs stop waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from testkit.ledger import ago, change_job, job_row, queued, record_statements  # isort: skip

from airflow_remote_protocol.states import JobState
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import bundles, publishing
from airflow_remote_provider.ledger.bundles import PublishedBundle
from airflow_remote_provider.models import BundleRow, Edition

from testkit import code

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _publish(name: str, content: bytes, *, version: str | None = None, newest: bool = True, age_s: float = 0.0) -> bool:
    def work(session: Session) -> bool:
        tree = code.store(session, {"dag.py": content})
        scanned_at = compat.database_now(session) - timedelta(seconds=age_s)
        return bundles.publish(session, PublishedBundle(name, version, tree, scanned_at, "host:1", newest))

    return _do(work)


def _digest(content: bytes) -> str:
    return code.tree_of({"dag.py": content}).digest


def _bundle(name: str) -> BundleRow:
    row = _do(lambda session: session.get(BundleRow, name))
    assert row is not None
    return row


def _trees(name: str) -> list[str]:
    return [one.tree for one in _do(lambda session: bundles.newest_trees(session, name, most=10))]


def _wanted(name: str) -> list[str]:
    """Return the versions of the bundle that its publisher is to make."""
    assigned = _do(lambda session: publishing.assign(session, [name], "holder", lasts=timedelta(minutes=1)))
    return assigned.versions.get(name, [])


def _waiting(bundle: str, **values: object) -> str:
    job = queued(bundle=bundle)
    change_job(job.job_id, code_waits=True, **values)
    return job.job_id


def _waits(job_id: str) -> bool:
    return job_row(job_id).code_waits


def test_the_newest_tree_is_the_last_one_published() -> None:
    assert not _do(lambda session: bundles.is_published(session, "b"))
    for content in (b"1", b"2"):
        assert _publish("b", content)
    row = _bundle("b")
    assert (row.tree, row.versioned, row.publisher, row.trouble) == (_digest(b"2"), False, "host:1", "")
    assert row.scanned_at is not None and row.published_at is not None and row.scanned_at <= row.published_at
    assert _trees("b") == [_digest(b"2"), _digest(b"1")]
    assert _do(lambda session: bundles.is_published(session, "b"))
    assert not _do(lambda session: bundles.is_published(session, "B")), "names differ by case"


def test_a_tree_that_returns_is_an_edition_of_its_own() -> None:
    for content in (b"1", b"2", b"1"):
        _publish("b", content)
    assert _trees("b") == [_digest(b"1"), _digest(b"2"), _digest(b"1")]


def test_publishing_the_same_tree_again_only_renews_its_scan() -> None:
    _publish("b", b"1", age_s=60)
    before = _bundle("b")
    _publish("b", b"1")
    after = _bundle("b")
    assert after.published_at == before.published_at
    assert before.scanned_at is not None and after.scanned_at is not None and after.scanned_at > before.scanned_at
    (edition,) = _do(lambda session: bundles.newest_trees(session, "b", most=10))
    assert edition.scanned_at == after.scanned_at


def test_a_scan_that_is_older_than_the_last_one_publishes_nothing() -> None:
    _publish("b", b"new")
    assert not _publish("b", b"old", age_s=60)
    assert _bundle("b").tree == _digest(b"new") and _trees("b") == [_digest(b"new")]


def test_publishers_at_once_leave_the_newest_scan(database: Engine) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda age: _publish("b", str(age).encode(), age_s=age), [30.0, 0.0, 20.0, 10.0]))
    assert _bundle("b").tree == _digest(b"0.0") == _trees("b")[0]


def test_a_version_is_published_once_and_found_by_its_name() -> None:
    _publish("b", b"1", version="v1")
    _publish("b", b"2", version="v2")
    assert _bundle("b").versioned and _bundle("b").tree == _digest(b"2")
    found = {version: _do(lambda s, v=version: bundles.tree_of_version(s, "b", v)) for version in ("v1", "v2", "V1", "v3")}  # type: ignore[misc]
    assert found == {"v1": _digest(b"1"), "v2": _digest(b"2"), "V1": None, "v3": None}


def test_an_older_version_that_a_job_wanted_does_not_become_the_newest() -> None:
    _publish("b", b"2", version="v2")
    _do(lambda session: bundles.want_version(session, "b", "v1"))
    assert _wanted("b") == ["v1"]
    _publish("b", b"1", version="v1", newest=False)
    assert _bundle("b").tree == _digest(b"2")
    assert _do(lambda session: bundles.tree_of_version(session, "b", "v1")) == _digest(b"1")
    assert _wanted("b") == []


def test_a_version_is_wanted_once_and_not_if_it_is_published() -> None:
    _publish("b", b"1", version="v1")
    for version in ("v1", "v3", "v2", "v3"):
        _do(lambda session, version=version: bundles.want_version(session, "b", version))  # type: ignore[misc]
    assert _wanted("b") == ["v3", "v2"]
    assert _wanted("other") == []


def test_a_version_may_be_wanted_of_a_bundle_that_nobody_has_published() -> None:
    _do(lambda session: bundles.want_version(session, "b", "v1"))
    assert _wanted("b") == ["v1"]
    assert not _do(lambda session: bundles.is_published(session, "b")) and _bundle("b").tree is None


def test_a_publication_lets_the_jobs_that_wait_be_considered_again() -> None:
    _publish("b", b"0", version="v0")
    newest, one, two, other = _waiting("b"), _waiting("b", bundle_version="v1"), _waiting("b", bundle_version="v2"), _waiting("c")
    _publish("b", b"1", version="v1", newest=False)
    assert [_waits(job) for job in (newest, one, two, other)] == [True, False, True, True]
    _publish("b", b"2", version="v2")
    assert [_waits(job) for job in (newest, one, two, other)] == [False, False, False, True]


def test_a_scan_without_changes_lets_the_jobs_that_wait_be_considered_again() -> None:
    _publish("b", b"1", age_s=60)
    job, version = _waiting("b"), _waiting("b", bundle_version="v1")
    now = _do(compat.database_now)
    _do(lambda session: bundles.note_scan(session, "b", now, publisher="host:2"))
    assert not _waits(job) and _waits(version)
    assert _bundle("b").scanned_at == now and _bundle("b").publisher == "host:2"
    (edition,) = _do(lambda session: bundles.newest_trees(session, "b", most=10))
    assert edition.scanned_at == now


def test_an_older_scan_and_a_scan_of_an_unpublished_bundle_say_nothing() -> None:
    _publish("b", b"1")
    before = _bundle("b").scanned_at
    _do(lambda session: bundles.note_scan(session, "b", ago(hours=1)))
    _do(lambda session: bundles.note_scan(session, "new", ago()))
    assert _bundle("b").scanned_at == before and _bundle("new").scanned_at is None


def test_a_request_ends_with_a_scan_that_began_after_it() -> None:
    _publish("b", b"1", age_s=60)
    _do(lambda session: bundles.request(session, "b"))
    _publish("b", b"2", age_s=30)
    assert _bundle("b").wanted_at is not None, "this scan began before the request"
    now = _do(compat.database_now)
    _do(lambda session: bundles.note_scan(session, "b", now))
    assert _bundle("b").wanted_at is None


def test_trouble_is_shown_until_the_next_scan() -> None:
    _publish("b", b"1", age_s=60)
    _do(lambda session: bundles.note_trouble(session, "b", "x.py is a link\nto /etc", publisher="host:3"))
    row = _bundle("b")
    assert (row.trouble, row.publisher, row.tree) == ("x.py is a link to /etc", "host:3", _digest(b"1"))
    now = _do(compat.database_now)
    _do(lambda session: bundles.note_scan(session, "b", now))
    assert _bundle("b").trouble == ""


def test_the_jobs_of_a_version_that_is_gone_fail_with_the_publishers_words() -> None:
    _publish("b", b"2", version="v2")
    _do(lambda session: bundles.want_version(session, "b", "v1"))
    gone = [_waiting("b", bundle_version="v1") for _ in range(3)]
    others = [_waiting("b", bundle_version="v3"), _waiting("c", bundle_version="v1"), _waiting("b")]
    _do(lambda session: bundles.note_trouble(session, "b", "the commit v1 is not in the repository", "v1"))
    for job_id in gone:
        row = job_row(job_id)
        assert row.state == JobState.FAILED.value and row.ended_at is not None
        assert row.reason == "version v1 of the Dag bundle 'b' can't be published: the commit v1 is not in the repository"
    assert [job_row(job_id).state for job_id in others] == ["queued"] * 3
    assert _wanted("b") == []
    (edition,) = _do(lambda session: list(session.scalars(select(Edition).where(Edition.version == "v1"))))
    assert edition.trouble == "the commit v1 is not in the repository"
    _do(lambda session: bundles.want_version(session, "b", "v1"))
    assert _wanted("b") == ["v1"], "the next job asks again"


def test_trouble_with_a_published_version_fails_nothing() -> None:
    _publish("b", b"1", version="v1")
    job = _waiting("b", bundle_version="v1")
    _do(lambda session: bundles.note_trouble(session, "b", "gone", "v1"))
    assert job_row(job).state == "queued"
    assert _do(lambda session: bundles.tree_of_version(session, "b", "v1")) == _digest(b"1")


def test_publishing_an_unchanged_bundle_takes_few_statements(database: Engine) -> None:
    _publish("b", b"1", age_s=60)
    now = _do(compat.database_now)
    with record_statements(database) as statements:
        _do(lambda session: bundles.note_scan(session, "b", now))
    assert len(statements) <= 5, statements


def test_long_names_and_texts_are_stored(database: Engine) -> None:
    name = "\u00e9" * 250
    _publish(name, b"1", version="v" * 250)
    long = {"x" * 5000: ""}
    _do(lambda session: bundles.note_trouble(session, name, next(iter(long)), publisher="h" * 500))
    row = _bundle(name)
    assert len(row.trouble) == bundles.LONGEST_TROUBLE and len(row.publisher) == 250
