"""The duty that deletes code which nobody needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

import testkit.ledger  # noqa: F401  isort: skip  (first: it points Airflow elsewhere)

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties import collector
from airflow_remote_provider.api.duties.collector import Collector
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import sweep
from airflow_remote_provider.models import Blob, BlobPart, Duty, Edition, TreeRow
from airflow_remote_provider.settings import parse
from airflow_remote_provider.stores.blobs import BlobStore
from airflow_remote_provider.stores.blobs.opened import BlobStores

from testkit import code

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _collect(store: str) -> None:
    async def collect() -> None:
        pool = LedgerPool(2)
        try:
            await Collector(pool, parse({"blob_store": store, "tree_days": "1"})).collect()
        finally:
            pool.close()

    asyncio.run(collect())


def _publish(store: BlobStore, content: bytes) -> None:
    _do(lambda session: code.publish(session, "b", {"same": b"same", "a": content}, blobs=store))


def _age() -> None:
    def age(session: Session) -> None:
        for row in session.scalars(select(TreeRow)):
            row.seen_at -= timedelta(days=3)
        for blob in session.scalars(select(Blob)):
            blob.seen_at -= timedelta(days=3)
        for edition in session.scalars(select(Edition)):
            assert edition.published_at is not None
            edition.published_at -= timedelta(days=3)

    _do(age)


def _stored(store: BlobStore) -> set[str]:
    later = time.time() + 3600
    session_or_none: Callable[[Session], set[str]] = lambda session: {  # noqa: E731
        place for some in store.places(session if store.needs_session else None, before_s=later) for place in some
    }
    return _do(session_or_none)


def _places() -> set[str]:
    return set(_do(lambda session: list(session.scalars(select(Blob.place)))))


@pytest.mark.parametrize("kind", ["database", "files"])
def test_rows_and_bytes_of_old_trees_are_deleted_in_either_store(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "SWEPT_FILES", 2)  # several batches
    monkeypatch.setattr(collector, "PAUSE_S", 0.0)
    setting = "database" if kind == "database" else str(tmp_path)
    store = BlobStores(setting).newest
    for number in range(9):
        _publish(store, str(number).encode())
    _age()
    assert len(_stored(store)) == 10
    _collect(setting)
    assert _stored(store) == _places()
    assert len(_places()) == 5, "the shared file, the current one and those of the three trees before it"


@pytest.mark.parametrize("kind", ["database", "files"])
def test_bytes_that_a_publisher_left_behind_are_deleted_after_a_day(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = "database" if kind == "database" else str(tmp_path)
    store = BlobStores(setting).newest
    _publish(store, b"1")
    left = _do(lambda session: store.put(session if store.needs_session else None, "f" * 64, b"left behind"))
    _collect(setting)
    assert left in _stored(store), "its publisher may still be at work"
    monkeypatch.setattr(collector, "LEFT_AFTER_S", -3600.0)
    _collect(setting)
    assert _stored(store) == _places() and len(_places()) == 2


def test_old_blobs_are_deleted_from_the_database_after_another_store_was_configured(tmp_path: Path) -> None:
    for number in range(6):
        _publish(BlobStores("database").newest, str(number).encode())
    _age()
    _collect(str(tmp_path))
    assert _do(lambda session: len(session.scalars(select(BlobPart)).all())) == len(_places()) == 5


def test_one_process_collects_and_a_failure_does_not_end_the_duty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "FIRST_AFTER_S", 0.0)
    monkeypatch.setattr(collector, "EVERY_S", 0.01)
    collected: list[str] = []

    async def collect(self: Collector) -> None:
        collected.append(self._holder)
        if len(collected) == 1:
            raise OSError("the object store is away")

    monkeypatch.setattr(Collector, "collect", collect)

    async def run() -> None:
        pool = LedgerPool(2)
        tasks = [asyncio.create_task(Collector(pool, parse({})).run()) for _ in range(3)]
        try:
            for _ in range(1000):
                await asyncio.sleep(0.01)
                if len(collected) >= 5:
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            pool.close()

    asyncio.run(run())
    assert len(collected) >= 5 and len(set(collected)) == 1
    assert _do(lambda session: session.scalar(select(Duty.holder).where(Duty.name == "code"))) == collected[0]
