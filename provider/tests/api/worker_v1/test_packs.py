"""Packs: their plans, what a reader holds, and what happens to bytes that are gone."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path

import pytest

from testkit.ledger import record_statements  # isort: skip

from airflow_remote_protocol.packs import PackReader
from airflow_remote_provider import compat
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.worker_v1 import packs as module
from airflow_remote_provider.api.worker_v1.packs import PackRequest, Packs, Plan
from airflow_remote_provider.ledger import trees
from airflow_remote_provider.models import BlobPart, TreeRow
from airflow_remote_provider.stores.blobs import BlobLost
from airflow_remote_provider.stores.blobs.opened import BlobStores
from sqlalchemy import Engine, delete, select

from testkit import code

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_loaded(database: Engine) -> None:
    trees.forget_loaded()


def _run(check: Callable[[Packs], Awaitable[None]], store: str = "database") -> None:
    async def run() -> None:
        pool = LedgerPool(4)
        packs = Packs(pool, BlobStores(store))
        try:
            await check(packs)
        finally:
            packs.close()
            pool.close()

    asyncio.run(run())


def _publish(files: dict[str, bytes], store: str = "database") -> str:
    with compat.transaction() as session:
        return code.publish(session, "b", files, blobs=BlobStores(store).newest).digest


async def _plan(packs: Packs, digest: str, base: str | None = None, *, lzma: bool = True) -> Plan:
    plan = await packs.plan(PackRequest(digest, base, lzma), before_making=lambda: None)
    assert plan is not None
    return plan


async def _all(packs: Packs, plan: Plan, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([window async for window in packs.read(plan, start, plan.layout.size if end is None else end)])


def _files(count: int = 40) -> dict[str, bytes]:
    chance = random.Random(7)
    large = {"large.bin": chance.randbytes(3 * MIB), "text.txt": b"".join(b"%d," % chance.randrange(9) for _ in range(300_000))}
    return large | {f"f{number}": chance.randbytes(chance.randrange(3000)) for number in range(count)}


@pytest.mark.parametrize("lzma", [True, False])
@pytest.mark.parametrize("store", ["database", "files"])
def test_every_stretch_of_a_pack_is_the_same_bytes(tmp_path: Path, store: str, lzma: bool) -> None:
    store = str(tmp_path) if store == "files" else store
    files = _files()
    digest = _publish(files, store)

    async def check(packs: Packs) -> None:
        plan = await _plan(packs, digest, lzma=lzma)
        whole = await _all(packs, plan)
        assert len(whole) == plan.layout.size
        reader = PackReader(BytesIO(whole), digest=digest, bases=lambda _: None)
        contents = {sha256: b"".join(pieces) for sha256, pieces in reader.blobs()}
        assert {entry.path: contents[entry.sha256] for entry in reader.tree.entries} == files
        chance = random.Random(3)
        for _ in range(25):
            start, end = sorted(chance.randrange(len(whole) + 1) for _ in range(2))
            assert await _all(packs, plan, start, end) == whole[start:end], (start, end)

    _run(check, store)


def test_a_plan_is_made_once_for_all_that_ask_at_the_same_time() -> None:
    digest = _publish({"a": b"a"})
    made: list[None] = []

    async def check(packs: Packs) -> None:
        asked = PackRequest(digest, None, True)
        plans = await asyncio.gather(*(packs.plan(asked, before_making=lambda: made.append(None)) for _ in range(20)))
        assert len({id(plan) for plan in plans}) == 1
        before = len(made)
        assert await packs.plan(asked, before_making=lambda: made.append(None)) is plans[0]
        assert len(made) == before, "a plan that is known costs the worker nothing"

    _run(check)


def test_a_caller_that_is_gone_does_not_end_the_plan_of_others() -> None:
    digest = _publish({"a": b"a"})

    async def check(packs: Packs) -> None:
        asked = PackRequest(digest, None, True)
        first = asyncio.ensure_future(packs.plan(asked, before_making=lambda: None))
        second = asyncio.ensure_future(packs.plan(asked, before_making=lambda: None))
        await asyncio.sleep(0)
        first.cancel()
        assert await second is not None

    _run(check)


def test_plans_that_are_kept_are_bounded_by_their_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BLOBS", 10)
    digests = [_publish({f"{number}-{n}": f"{number}-{n}".encode() for n in range(4)}) for number in range(6)]

    async def check(packs: Packs) -> None:
        for digest in digests:
            await _plan(packs, digest)
        assert [asked.tree for asked in packs._plans] == digests[-2:]
        for base in digests:  # a worker that names many bases
            await _plan(packs, digests[-1], base)
        assert sum(len(plan.blobs) for plan in packs._plans.values()) <= 10

    _run(check)


def test_plans_without_blobs_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PLANS", 5)
    digest = _publish({"a": b"a"})

    async def check(packs: Packs) -> None:
        for number in range(20):
            await _plan(packs, digest, f"{number:064x}")  # unknown bases
        assert len(packs._plans) <= 5

    _run(check)


def test_a_reader_that_stands_still_holds_little_memory_and_no_thread() -> None:
    digest = _publish({f"{number}.bin": random.Random(number).randbytes(4 * MIB) for number in range(3)})
    readers = 20

    async def check(packs: Packs) -> None:
        plan = await _plan(packs, digest)
        await _all(packs, plan, 0, MIB)  # what the database's driver keeps
        gc.collect()
        tracemalloc.start()
        try:
            contents = [packs.read(plan, number * 1000, plan.layout.size) for number in range(readers)]
            windows = [await anext(content) for content in contents]
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < readers * MIB, f"a reader holds {held // readers} bytes"
        assert peak < readers * 2 * MIB
        assert all(len(window) <= module.WINDOW for window in windows)
        busy = [thread for thread in threading.enumerate() if thread.name.startswith("remote-blobs")]
        assert busy == []
        assert await asyncio.wait_for(packs._pool.call(lambda session: session.scalar(select(1))), 5) == 1
        for content in contents:
            await content.aclose()  # type: ignore[attr-defined]

    _run(check)


def test_a_window_of_small_blobs_takes_one_statement(database: Engine) -> None:
    digest = _publish({f"f{number}": f"content {number}".encode() for number in range(400)})

    async def check(packs: Packs) -> None:
        plan = await _plan(packs, digest)
        with record_statements(database) as statements:
            await _all(packs, plan)
        assert len(statements) == 1, statements

    _run(check)


def test_a_tree_that_is_not_complete_has_no_plan() -> None:
    with compat.transaction() as session:
        digest = code.store(session, {"a": b"a"}).digest

    async def check(packs: Packs) -> None:
        for asked in (digest, "0" * 64):
            assert await packs.plan(PackRequest(asked, None, True), before_making=lambda: None) is None

    _run(check)


def test_bytes_that_are_gone_are_noted_and_stored_again_by_the_next_publication() -> None:
    files = {"a": b"a" * 100, "b": b"b" * 100}
    digest = _publish(files)

    async def check(packs: Packs) -> None:
        plan = await _plan(packs, digest)
        sha256 = hashlib.sha256(files["a"]).hexdigest()
        with compat.transaction() as session:
            session.execute(delete(BlobPart).where(BlobPart.place == plan.blobs[sha256].place))
        with pytest.raises(BlobLost) as lost:
            await _all(packs, plan)
        assert lost.value.sha256 == sha256
        packs.forget(plan)
        await packs.note_lost(digest, lost.value)
        assert await packs.plan(PackRequest(digest, None, True), before_making=lambda: None) is None
        with compat.transaction() as session:
            assert trees.missing_blobs(session, [plan_sha for plan_sha in plan.blobs]) == {sha256}
        assert _publish(files) == digest
        again = await _plan(packs, digest)
        assert again.etag == plan.etag
        assert len(await _all(packs, again)) == plan.layout.size

    _run(check)


def test_a_tree_whose_rows_of_blobs_are_gone_is_incoming_again() -> None:
    digest = _publish({"a": b"a"})

    async def check(packs: Packs) -> None:
        with compat.transaction() as session:
            session.execute(delete(trees.Blob))
        assert await packs.plan(PackRequest(digest, None, True), before_making=lambda: None) is None
        with compat.transaction() as session:
            assert session.scalar(select(TreeRow.state)) == "incoming"

    _run(check)
