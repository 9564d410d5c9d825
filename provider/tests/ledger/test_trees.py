"""Trees and blobs: what is missing, what is deleted, and what is kept while a publisher or a job relies on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TypeVar

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from testkit.ledger import ago, change_job, enlist, offered, queued, running  # isort: skip

from airflow_remote_protocol.packs import Encoding, encode_blob
from airflow_remote_protocol.trees import Tree
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import bundles, leases, sweep, trees
from airflow_remote_provider.ledger.bundles import PublishedBundle
from airflow_remote_provider.ledger.sweep import Swept
from airflow_remote_provider.ledger.trees import BUNDLE, BlobsMissing, NewBlob, TreeGone
from airflow_remote_provider.models import Blob, BlobPart, BundleRow, Edition, TreeRow
from airflow_remote_provider.stores.blobs.database import DatabaseBlobs

from testkit import code

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")

LONG_AGO = timedelta(days=100)


@pytest.fixture(autouse=True)
def _nothing_loaded() -> None:
    trees.forget_loaded()


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _publish(name: str, files: Mapping[str, bytes], *, version: str | None = None) -> Tree:
    return _do(lambda session: code.publish(session, name, files, version=version))


def _age(by: timedelta = LONG_AGO) -> None:
    """Let everything have been seen and published *by* earlier."""

    def age(session: Session) -> None:
        for row in session.scalars(select(TreeRow)):
            row.seen_at -= by
        for blob in session.scalars(select(Blob)):
            blob.seen_at -= by
        for edition in session.scalars(select(Edition)):
            edition.published_at = edition.published_at - by if edition.published_at else None
            edition.wanted_at = edition.wanted_at - by if edition.wanted_at else None

    _do(age)


def _sweep(*, tree_days: float = 30.0) -> list[Swept]:
    """Sweep until nothing is left, and delete the bytes as the duty does."""
    done = []
    while not (swept := _do(lambda s: sweep.sweep(s, compat.database_now(s), tree_days=tree_days))).is_all:
        places = swept.places
        _do(lambda session: DatabaseBlobs().delete(session, places))  # noqa: B023  (called at once)
        done.append(swept)
    return done


def _trees() -> set[str]:
    return set(_do(lambda session: list(session.scalars(select(TreeRow.digest)))))


def _blobs() -> set[str]:
    return set(_do(lambda session: list(session.scalars(select(Blob.sha256)))))


def _parts() -> int:
    return _do(lambda session: session.scalar(select(func.count()).select_from(BlobPart)) or 0)


def _hashes(tree: Tree) -> set[str]:
    return set(tree.sizes)


def test_only_blobs_that_are_not_stored_are_missing() -> None:
    one = _publish("b", {"a": b"a", "b": b"b"})
    two = code.tree_of({"a": b"a", "c": b"c"})
    assert _do(lambda session: trees.missing_blobs(session, two.sizes)) == _hashes(two) - _hashes(one)
    assert _do(lambda session: trees.missing_blobs(session, [])) == set()


def test_many_blobs_are_asked_for_in_several_statements() -> None:
    files = {f"f{number}": str(number).encode() for number in range(1203)}
    tree = _publish("b", files)
    assert _do(lambda session: trees.missing_blobs(session, [*tree.sizes, "0" * 64])) == {"0" * 64}
    assert len(_do(lambda session: trees.stored(session, tree.sizes))) == 1203


def test_asking_for_a_blob_keeps_it_and_a_recent_one_is_not_written_again() -> None:
    tree = _publish("b", {"a": b"a"})
    _age(timedelta(minutes=30))
    _do(lambda session: trees.missing_blobs(session, tree.sizes))
    seen = _do(lambda session: session.scalar(select(Blob.seen_at)))
    assert seen is not None and seen > ago(minutes=2)
    _do(lambda session: trees.missing_blobs(session, tree.sizes))
    assert _do(lambda session: session.scalar(select(Blob.seen_at))) == seen


def test_a_stored_blob_is_known_with_its_encoding_sizes_and_text() -> None:
    content = b"x = 1\n" * 100
    encoding, packed = encode_blob(content)

    def add(session: Session) -> list[str]:
        tree = code.tree_of({"dag.py": content})
        trees.begin_tree(session, tree, BUNDLE, "me")
        (sha256,) = tree.sizes
        place = DatabaseBlobs().put(session, sha256, packed)
        return trees.add_blobs(session, [NewBlob(sha256, 600, encoding, len(packed), place, "ab" * 16)])

    assert _do(add) == []
    (sha256,) = _blobs()
    found = _do(lambda session: trees.stored(session, [sha256, "0" * 64]))
    assert set(found) == {sha256}
    assert found[sha256][:3] == (Encoding.DEFLATE, len(packed), 600)
    assert _do(lambda session: trees.text_hashes(session, [sha256, "0" * 64])) == {sha256: "ab" * 16}


def test_a_blob_that_another_publisher_added_is_not_added_twice_and_its_second_place_is_returned() -> None:
    def blob(number: int, place: str) -> NewBlob:
        return NewBlob(f"{number:064x}", 1, Encoding.RAW, 1, place)

    assert _do(lambda session: trees.add_blobs(session, [blob(1, "p1"), blob(2, "p2")])) == []
    assert _do(lambda session: trees.add_blobs(session, [blob(2, "p3"), blob(3, "p4"), blob(3, "p5")])) in (
        ["p3", "p4"],
        ["p3", "p5"],
    )
    assert _do(lambda session: trees.stored(session, [f"{2:064x}"]))[f"{2:064x}"].place == "p2"


def test_publishers_that_add_the_same_blobs_at_once_agree(database: Engine) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    files = {f"f{number}": str(number).encode() for number in range(50)}

    def one_publisher(number: int) -> list[str]:
        def work(session: Session) -> list[str]:
            tree = code.tree_of(files)
            trees.begin_tree(session, tree, BUNDLE, f"publisher {number}")
            return trees.add_blobs(
                session,
                [NewBlob(sha256, size, Encoding.RAW, size, f"{number}-{sha256[:8]}") for sha256, size in tree.sizes.items()],
            )

        return _do(work)

    with ThreadPoolExecutor(4) as pool:
        unused = list(pool.map(one_publisher, range(4)))
    assert sum(len(some) for some in unused) == 3 * 50
    assert len(_blobs()) == 50 and len(_trees()) == 1


def test_a_tree_is_loaded_as_it_was_stored() -> None:
    tree = _publish("b", {"a/b.py": b"1", "\u00fc": b"2"})
    for _ in range(2):  # from the database, then from memory
        loaded = _do(lambda session: trees.load_tree(session, tree.digest))
        assert loaded is not None and loaded.manifest == tree.manifest
    assert _do(lambda session: trees.load_tree(session, "0" * 64)) is None


def test_loaded_trees_are_bounded_by_their_files() -> None:
    few = trees._LoadedTrees(most_files=10)
    made = [code.tree_of({f"{number}-{n}": b"" for n in range(4)}) for number in range(4)]
    for tree in made:
        few.put(tree)
    assert [few.get(tree.digest) is not None for tree in made] == [False, False, True, True]
    few.put(code.tree_of({f"large-{n}": b"" for n in range(50)}))
    assert len(few._trees) == 1, "a tree that is larger than the bound is kept alone"


def test_a_tree_with_missing_blobs_is_not_published() -> None:
    tree = code.tree_of({"a": b"a", "b": b"b"})
    published = PublishedBundle("b", None, tree, ago(), "me")
    with pytest.raises(TreeGone):
        _do(lambda session: bundles.publish(session, published))
    _do(lambda session: trees.begin_tree(session, tree, BUNDLE, "me"))
    with pytest.raises(BlobsMissing) as refused:
        _do(lambda session: bundles.publish(session, published))
    assert refused.value.missing == _hashes(tree)
    assert not _do(lambda session: trees.is_ready(session, tree.digest))
    assert _do(lambda session: session.scalar(select(BundleRow.tree))) is None


# The garbage collection


def test_nothing_new_is_deleted() -> None:
    tree = _publish("b", {"a": b"a"})
    _do(lambda session: code.store(session, {"incoming": b"incoming"}))
    assert _sweep() == []
    assert tree.digest in _trees() and len(_trees()) == 2 and len(_blobs()) == 2


def test_the_newest_trees_of_a_bundle_stay_whatever_their_age() -> None:
    made = [_publish("b", {"a": str(number).encode(), "same": b"same"}) for number in range(6)]
    _age()
    _sweep()
    assert _trees() == {tree.digest for tree in made[2:]}, "the current one and the three before it"
    assert _blobs() == set().union(*(_hashes(tree) for tree in made[2:]))
    assert _parts() == len(_blobs())


def test_older_trees_stay_for_tree_days() -> None:
    made = [_publish("b", {"a": str(number).encode()}) for number in range(6)]
    _age(timedelta(days=20))
    assert _sweep(tree_days=30) == []
    assert len(_trees()) == 6
    _sweep(tree_days=10)
    assert _trees() == {tree.digest for tree in made[2:]}


def test_a_bundle_that_changes_all_the_time_keeps_a_bounded_number_of_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MOST_EDITIONS", 5)
    made = [_publish("b", {"a": str(number).encode()}) for number in range(8)]
    _age(timedelta(hours=2))
    _sweep()
    assert _trees() == {tree.digest for tree in made[3:]}


def test_a_tree_that_two_bundles_have_stays_with_either() -> None:
    tree = _publish("b", {"a": b"same"})
    _publish("c", {"a": b"same"})
    for number in range(5):
        _publish("b", {"a": str(number).encode()})
    _age()
    _sweep()
    assert tree.digest in _trees() and _hashes(tree) <= _blobs()


def test_blobs_of_a_deleted_tree_that_another_tree_has_stay() -> None:
    _publish("b", {"shared": b"shared", "own": b"own"})
    for number in range(4):
        _publish("b", {"shared": b"shared", "n": str(number).encode()})
    _age()
    (swept,) = [swept for swept in _sweep() if swept.trees]
    assert swept.trees == 1 and len(swept.places) == 1
    gone = code.tree_of({"own": b"own"})
    assert _blobs().isdisjoint(gone.sizes)
    assert set(code.tree_of({"shared": b"shared"}).sizes) <= _blobs()


def test_the_tree_of_an_open_job_stays_until_the_job_has_ended() -> None:
    old = _publish("b", {"a": b"old"})
    lease = running(enlist())
    change_job(lease.job_id, tree=old.digest)
    for number in range(5):
        _publish("b", {"a": str(number).encode()})
    _age()
    _sweep()
    assert old.digest in _trees() and _hashes(old) <= _blobs()
    change_job(lease.job_id, state="succeeded")
    _sweep()
    assert old.digest not in _trees() and _blobs().isdisjoint(_hashes(old))


def test_a_version_that_a_queued_job_needs_stays() -> None:
    old = _publish("b", {"a": b"old"}, version="v0")
    job = queued(bundle="b")
    change_job(job.job_id, bundle_version="v0")
    for number in range(5):
        _publish("b", {"a": str(number).encode()}, version=f"v{number + 1}")
    _age()
    _sweep()
    assert _do(lambda session: bundles.tree_of_version(session, "b", "v0")) == old.digest
    change_job(job.job_id, state="revoked")
    _sweep()
    assert _do(lambda session: bundles.tree_of_version(session, "b", "v0")) is None


def test_a_tree_that_was_never_finished_is_deleted_after_an_hour_with_its_blobs() -> None:
    current = _publish("b", {"a": b"a"})
    _do(lambda session: code.store(session, {"a": b"a", "half": b"half"}))
    _age(timedelta(minutes=50))
    assert _sweep() == []
    _age(timedelta(minutes=20))
    _sweep()
    assert _trees() == {current.digest} and _blobs() == _hashes(current)


def test_a_publisher_that_begins_again_keeps_its_tree_and_blobs() -> None:
    files = {"half": b"half"}
    tree = _do(lambda session: code.store(session, files))
    _age(timedelta(hours=2))
    _do(lambda session: code.store(session, files))
    assert _sweep() == []
    assert _trees() == {tree.digest} and _blobs() == _hashes(tree)


def test_blobs_that_a_publisher_has_just_seen_outlive_the_tree_that_brought_them() -> None:
    old = _publish("b", {"a": b"wanted again"})
    for number in range(4):
        _publish("b", {"a": str(number).encode()})
    _age()
    # A publisher of another bundle asks; its tree is not visible to the sweep yet.
    assert _do(lambda session: trees.missing_blobs(session, old.sizes)) == set()
    _sweep()
    assert _hashes(old) <= _blobs()
    assert _do(lambda session: session.scalar(select(TreeRow.state).where(TreeRow.digest == old.digest))) == "incoming"
    _age()
    _sweep()
    assert old.digest not in _trees() and _blobs().isdisjoint(_hashes(old))


def test_a_sweep_does_not_wait_for_a_claim_that_locks_a_tree(database: Engine) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    tree = _do(lambda session: code.store(session, {"a": b"a"}))
    _age()
    with compat.transaction() as claim:
        claim.execute(select(TreeRow.digest).where(TreeRow.digest == tree.digest).with_for_update(read=True))
        swept = _do(lambda session: sweep.sweep(session, compat.database_now(session), tree_days=30))
        assert swept.is_all
    assert _trees() == {tree.digest}
    _sweep()
    assert _trees() == set()


def test_publishing_while_a_sweep_holds_the_tree_waits_and_begins_again(database: Engine) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    files = {"a": b"a"}
    tree = _do(lambda session: code.store(session, files))
    _age()

    def publish() -> None:
        _do(lambda session: bundles.publish(session, PublishedBundle("b", None, tree, compat.database_now(session), "me")))

    with ThreadPoolExecutor(1) as pool:
        with compat.transaction() as session:
            assert sweep.sweep(session, compat.database_now(session), tree_days=30).trees == 1
            publishing = pool.submit(publish)
            with pytest.raises(TimeoutError):
                publishing.result(timeout=0.3)
        with pytest.raises(TreeGone):
            publishing.result(timeout=10)
    _publish("b", files)
    assert _trees() == {tree.digest} and _blobs() == _hashes(tree)


def test_publishers_and_sweeps_at_once_never_leave_a_published_tree_incomplete(database: Engine) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    versions = [{"same": b"same", f"n{number % 3}": str(number % 3).encode()} for number in range(12)]

    def publish_once(number: int) -> str:
        scanned_at = _now()
        tree = _do(lambda session: code.store(session, versions[number]))
        _do(lambda session: bundles.publish(session, PublishedBundle(f"b{number % 2}", None, tree, scanned_at, "me")))
        return tree.digest

    def publish(number: int) -> str:
        while True:
            try:
                return publish_once(number)
            except (TreeGone, BlobsMissing):
                continue

    def sweep_once(_: int) -> None:
        _age(timedelta(hours=2))
        _do(lambda session: sweep.sweep(session, compat.database_now(session), tree_days=0.01))

    with ThreadPoolExecutor(4) as pool:
        sweeps = [pool.submit(sweep_once, number) for number in range(12)]
        made = {future.result(60) for future in [pool.submit(publish, number) for number in range(12)]}
        for swept in sweeps:
            swept.result(60)
    assert made == {code.tree_of(files).digest for files in versions[:3]}

    def incomplete(session: Session) -> list[str]:
        broken = []
        for row in session.scalars(select(TreeRow).where(TreeRow.state == "ready")):
            trees.forget_loaded()
            tree = trees.load_tree(session, row.digest)
            assert tree is not None
            if trees.stored(session, tree.sizes).keys() != tree.sizes.keys():
                broken.append(row.digest)
        return broken

    assert _do(incomplete) == []
    current = set(_do(lambda session: list(session.scalars(select(BundleRow.tree)))))
    assert current <= _trees()


def test_a_worker_is_sent_the_trees_of_its_leased_jobs_only() -> None:
    digest = "ab" * 32
    mine, other = enlist(), enlist("other")
    lease = offered(mine)
    change_job(lease.job_id, tree=digest)

    def pinned(worker_id: str) -> bool:
        return _do(lambda session: trees.is_pinned_by(session, worker_id, digest))

    assert pinned(mine.id) and not pinned(other.id)
    _do(lambda session: leases.accept(session, lease))
    assert pinned(mine.id)
    for state in ("queued", "succeeded", "failed", "lost", "revoked"):
        change_job(lease.job_id, state=state)
        assert not pinned(mine.id), state


def test_places_without_a_blob_are_found() -> None:
    _publish("b", {"a": b"a"})
    (place,) = _do(lambda session: list(session.scalars(select(Blob.place))))
    assert _do(lambda session: trees.unknown_places(session, [place, "elsewhere"])) == {"elsewhere"}


def test_a_tree_whose_bytes_are_gone_is_stored_again_by_the_next_publication() -> None:
    files = {"a": b"a", "b": b"b"}
    tree = _publish("b", files)
    other = _publish("b", {"c": b"c"})
    (lost, *_) = sorted(tree.sizes)
    place = _do(lambda session: trees.stored(session, [lost]))[lost].place
    _do(lambda session: bundles.lose_tree(session, tree.digest, blob=(lost, place)))
    assert not _do(lambda session: trees.is_ready(session, tree.digest))
    assert _do(lambda session: session.scalar(select(BundleRow.tree))) == other.digest
    assert _do(lambda session: trees.missing_blobs(session, tree.sizes)) == {lost}
    assert _publish("b", files).digest == tree.digest
    assert _do(lambda session: trees.is_ready(session, tree.digest))
    _do(lambda session: bundles.lose_tree(session, tree.digest, blob=(lost, place)))
    assert _do(lambda session: trees.missing_blobs(session, tree.sizes)) == set(), "its bytes are elsewhere now"
    assert _do(lambda session: session.scalar(select(BundleRow.tree))) is None, "so its publisher publishes it again"


def test_a_clock_that_jumps_deletes_nothing_that_is_current() -> None:
    tree = _publish("b", {"a": b"a"})

    def sweep_in_the_future(session: Session) -> Swept:
        return sweep.sweep(session, compat.database_now(session) + timedelta(days=1000), tree_days=30)

    _do(sweep_in_the_future)
    assert _trees() == {tree.digest} and _blobs() == _hashes(tree)


def _now() -> datetime:
    return _do(compat.database_now)


def test_seen_at_comes_from_the_database() -> None:
    before = _now() - timedelta(seconds=1)
    _publish("b", {"a": b"a"})
    _do(lambda session: session.execute(update(TreeRow).values(made_by="x")))
    seen = _do(lambda session: session.scalar(select(TreeRow.seen_at)))
    assert seen is not None and before <= seen <= _now() + timedelta(seconds=1)
