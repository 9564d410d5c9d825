"""The API server's duty to publish: at once after its start, what it leaves to others, how it ends, and that it gives way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from testkit.bundles import LOCAL, SNAPSHOTS, configure_bundles  # isort: skip
from testkit.ledger import substitute  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties import publishing
from airflow_remote_provider.api.duties.publishing import GiveWay, Publishing, Stopping, in_daemon_thread
from airflow_remote_provider.compat import KnownBundle
from airflow_remote_provider.ledger import trees
from airflow_remote_provider.ledger.publishing import publishing_now
from airflow_remote_provider.models import BundleRow
from airflow_remote_provider.settings import parse


@pytest.fixture
def dags(tmp_path: Path, database: object) -> Iterator[Path]:
    trees.forget_loaded()
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "etl.py").write_text("x = 1\n")
    (tmp_path / "empty").mkdir()
    bundles = {
        "main": (LOCAL, {"path": str(dags)}),
        "empty": (LOCAL, {"path": str(tmp_path / "empty")}),
        "missing": (LOCAL, {"path": str(tmp_path / "missing")}),
        "git": (SNAPSHOTS, {"path": str(tmp_path / "repository")}),
    }
    with configure_bundles(tmp_path / "storage", **bundles):
        yield dags


def rows() -> dict[str, tuple[str | None, str]]:
    with compat.transaction() as session:
        return {row.name: (row.tree, row.trouble) for row in session.query(BundleRow)}


async def until(condition: Any) -> None:
    async with asyncio.timeout(60) if hasattr(asyncio, "timeout") else _NoLimit():
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


class _NoLimit:
    """Python 3.10 has no `asyncio.timeout`; there the limit is pytest's own."""

    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *error: object) -> None: ...


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_local_bundles_are_published_at_once_and_the_others_are_said_to_be_nobodys(
    dags: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    substitute(monkeypatch, "known_bundles", lambda session: [KnownBundle("elsewhere", frozenset())])

    async def serve() -> None:
        task = asyncio.create_task(Publishing(parse({}), every_s=0.05).run())
        await until(lambda: len(rows()) == 4)
        first = rows()["main"][0]
        (dags / "etl.py").write_text("x = 2\n")
        await until(lambda: rows()["main"][0] != first)
        await stopped(task)

    asyncio.run(serve())
    found = rows()
    assert found["main"][0] is not None
    for name in ("missing", "git", "elsewhere"):
        assert found[name] == (None, publishing.UNPUBLISHED)
    assert "empty" not in found  # its first Dag is still to be written, here or elsewhere
    with compat.transaction() as session:
        assert publishing_now(session, ["main"]) == set()  # given up, so that the next process need not wait


def test_a_request_is_met_before_the_next_round_is_due(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "SOONEST_S", 0.05)

    async def serve() -> None:
        duty = Publishing(parse({}), every_s=600)
        task = asyncio.create_task(duty.run())
        await until(lambda: "main" in rows())
        first = rows()["main"][0]
        (dags / "etl.py").write_text("x = 2\n")
        duty.note_request()
        await until(lambda: rows()["main"][0] != first)
        await stopped(task)

    asyncio.run(serve())


def test_nothing_is_published_if_it_is_switched_off(dags: Path) -> None:
    asyncio.run(asyncio.wait_for(Publishing(parse({"publish": "off"})).run(), 10))
    assert rows() == {}


def test_a_failure_of_the_database_is_reported_and_tried_again(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    real, failures = compat.in_transaction, [1, 2]

    def failing(verb: Any) -> Any:
        if failures:
            failures.pop()
            raise OperationalError("select", {}, Exception("no answer"))
        return real(verb)

    substitute(monkeypatch, "in_transaction", failing)

    async def serve() -> None:
        task = asyncio.create_task(Publishing(parse({}), every_s=0.05).run())
        await until(lambda: rows().get("main", (None, ""))[0] is not None)
        await stopped(task)

    asyncio.run(serve())


def test_work_gives_way_now_and_then_and_ends_when_the_process_does() -> None:
    is_stopping = threading.Event()
    give_way = GiveWay(is_stopping)
    begun = time.monotonic()
    while time.monotonic() - begun < publishing.WORKED_S:
        pass
    slept = time.monotonic()
    give_way()
    assert time.monotonic() - slept >= publishing.WORKED_S / 4
    is_stopping.set()
    with pytest.raises(Stopping):
        give_way()


def test_a_daemon_thread_returns_or_raises_what_its_work_does() -> None:
    async def check() -> None:
        assert await in_daemon_thread(lambda: 7) == 7
        assert await in_daemon_thread(lambda: threading.current_thread().daemon)
        with pytest.raises(ZeroDivisionError):
            await in_daemon_thread(lambda: 1 // 0)

    asyncio.run(check())
