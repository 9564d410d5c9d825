"""Rounds of publishing: one process for each bundle, one transaction when nothing has changed, and what is asked for."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.compat import bundle_sources
from airflow_remote_provider.ledger import bundles, trees
from airflow_remote_provider.ledger.publishing import publishing_now
from airflow_remote_provider.models import BundleRow
from airflow_remote_provider.packing.publish import Publisher, Result
from airflow_remote_provider.packing.watch import Changes, Rounds
from airflow_remote_provider.stores.blobs.database import DatabaseBlobs

from testkit.ledger import substitute

from .conftest import LIMITS, row

pytestmark = pytest.mark.usefixtures("dags")


@dataclass
class Process:
    """A process that publishes, with a clock of its own and a count of its transactions."""

    names: Collection[str] = ("dags",)
    has_to_match: bool = False
    now: float = 1000.0
    transactions: int = 0
    rounds: Rounds = field(init=False)

    def __post_init__(self) -> None:
        def counted(verb):  # type: ignore[no-untyped-def]
            self.transactions += 1
            return compat.in_transaction(verb)

        clock = lambda: self.now  # noqa: E731
        options = {"in_transaction": counted, "monotonic": clock}
        publisher = Publisher(
            bundle_sources(),
            DatabaseBlobs(),
            LIMITS,
            who="p",
            has_to_match=self.has_to_match,
            **options,  # type: ignore[arg-type]
        )
        self.rounds = Rounds(publisher, lambda: self.names, **options)  # type: ignore[arg-type]

    def results(self) -> list[tuple[str, str | None, Result]]:
        return [(outcome.name, outcome.version, outcome.what) for outcome in self.rounds.run()]


PUBLISHED = [("dags", None, Result.PUBLISHED)]
UNCHANGED = [("dags", None, Result.UNCHANGED)]


def test_the_first_round_publishes_at_once(dags: Path) -> None:
    assert Process().results() == PUBLISHED


def test_a_round_without_a_change_is_one_transaction_and_renews_the_time_of_the_scan() -> None:
    process = Process()
    process.results()
    before, process.transactions = row().scanned_at, 0
    process.now += 10
    assert process.results() == UNCHANGED
    assert process.transactions == 1
    after = row().scanned_at
    assert before is not None and after is not None and after > before


def test_one_process_at_a_time_publishes_a_bundle(dags: Path) -> None:
    first, second = Process(), Process()
    assert first.results() == PUBLISHED
    assert second.results() == []
    first.rounds.leave()
    second.now += 10
    second.rounds.look()
    assert second.results() == PUBLISHED
    assert first.results() == []


def test_who_publishes_now_is_known_until_it_leaves() -> None:
    process = Process()
    process.results()
    with compat.transaction() as session:
        assert publishing_now(session, ["dags", "git"]) == {"dags"}
    process.rounds.leave()
    with compat.transaction() as session:
        assert publishing_now(session, ["dags", "git"]) == set()


def test_what_another_process_has_published_meanwhile_is_published_again(dags: Path) -> None:
    process = Process()
    process.results()
    ours = row().tree
    (dags / "foreign.py").write_text("x = 1\n")
    Publisher(bundle_sources(), DatabaseBlobs(), LIMITS, who="another").publish("dags")
    (dags / "foreign.py").unlink()
    process.now += 10
    assert process.results() == [*UNCHANGED, *PUBLISHED]  # unchanged since this process has published it
    assert row().tree == ours


def test_a_tree_whose_bytes_the_store_has_lost_is_stored_again_in_the_next_round(dags: Path) -> None:
    process = Process()
    process.results()
    digest = row().tree or ""
    with compat.transaction() as session:
        tree = trees.load_tree(session, digest)
        assert tree is not None
        entry = tree.entries[0]
        place = trees.stored(session, [entry.sha256])[entry.sha256].place
        bundles.lose_tree(session, digest, blob=(entry.sha256, place))
    assert row().tree is None
    process.now += 10
    assert process.results() == [*UNCHANGED, *PUBLISHED]
    assert row().tree == digest
    with compat.transaction() as session:
        assert trees.stored(session, [entry.sha256])[entry.sha256].place != place


def test_the_first_file_of_an_empty_bundle_is_published_in_the_next_round(dags: Path) -> None:
    for file in dags.iterdir():
        file.unlink()
    process = Process(has_to_match=True)
    assert process.results() == [("dags", None, Result.EMPTY)]
    assert process.rounds.assigned == {"dags"}
    (dags / "first.py").write_text("x = 1\n")
    process.now += 10
    assert process.results() == PUBLISHED


def test_a_bundle_whose_files_are_not_here_is_left_to_others(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    substitute(monkeypatch, "parsed_dag_files", lambda session, name: ["other.py"])
    here, there = Process(has_to_match=True), Process()
    assert here.results() == [("dags", None, Result.NOT_HERE)]
    assert here.rounds.assigned == frozenset()
    assert there.results() == PUBLISHED


def test_a_request_of_a_user_is_news_once() -> None:
    process = Process()
    process.results()
    with compat.transaction() as session:
        bundles.request(session, "dags")
    process.rounds.look()
    assert process.rounds.has_news
    process.now += 1
    process.results()
    assert not process.rounds.has_news
    with compat.transaction() as session:
        bundle = session.get(BundleRow, "dags")
    assert bundle is not None
    assert bundle.wanted_at is None


def test_a_request_that_can_not_be_met_does_not_make_rounds_follow_each_other(dags: Path) -> None:
    process = Process()
    process.results()
    dags.rename(dags.parent / "away")
    with compat.transaction() as session:
        bundles.request(session, "dags")
    process.rounds.look()
    assert process.results() == [("dags", None, Result.FAILED)]
    assert not process.rounds.has_news


def test_a_version_that_jobs_need_is_made_in_the_next_round() -> None:
    process = Process(["git"])
    assert process.results() == [("git", "v2", Result.PUBLISHED)]
    with compat.transaction() as session:
        bundles.want_version(session, "git", "v1")
    process.rounds.look()
    assert process.rounds.has_news
    assert process.results() == [("git", "v1", Result.PUBLISHED)]
    assert not process.rounds.has_news


def test_a_version_that_can_not_be_made_now_is_tried_again_later(tmp_path: Path) -> None:
    process = Process(["git"])
    process.results()
    with compat.transaction() as session:
        bundles.want_version(session, "git", "v1")
    process.rounds.look()
    (tmp_path / "repository").rename(tmp_path / "away")
    assert process.results() == [("git", "v1", Result.FAILED)]
    assert not process.rounds.has_news
    (tmp_path / "away").rename(tmp_path / "repository")
    process.now += 31
    assert process.rounds.has_news
    assert process.results() == [("git", "v1", Result.PUBLISHED)]


def test_a_bundle_with_versions_is_refreshed_as_often_as_airflow_does(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(["git"])
    process.results()
    process.now += 10
    assert process.results() == []
    process.now += 300
    assert process.results() == [("git", "v2", Result.UNCHANGED)]


def test_a_change_of_a_file_ends_the_wait(tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    changes = Changes([tmp_path / "watched"])
    assert not changes.wait(0.6)
    threading.Timer(0.3, (tmp_path / "watched/new.py").write_text, ("x",)).start()
    assert changes.wait(30)


def test_without_a_directory_the_wait_lasts_as_long_as_it_should(tmp_path: Path) -> None:
    assert not Changes([tmp_path / "missing"]).wait(0.05)
    assert not Changes([]).wait(0.05)
