"""Parked polls: each is answered at most once, and never after it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone

from airflow_remote_protocol.messages import Intent, IntentMode
from airflow_remote_provider.api.dispatch.waiting_room import RETURNS_PER_S, News, Parked, WaitingRoom
from airflow_remote_provider.ledger.workers import WorkerRecord


def _record(worker_id: str = "w") -> WorkerRecord:
    now = datetime.now(timezone.utc)
    return WorkerRecord(worker_id, worker_id, "hash", False, ("q",), None, 4, Intent(IntentMode.SERVE, 1), "session", now)


def _parked(worker_id: str = "w") -> Parked:
    return Parked(_record(worker_id), 1, frozenset(), 1, asyncio.get_running_loop().create_future())


def _on_a_loop(check: Callable[[WaitingRoom], None]) -> None:
    async def run() -> None:
        check(WaitingRoom())

    awaitable: Awaitable[None] = run()
    asyncio.run(awaitable)  # type: ignore[arg-type]


def test_the_first_reply_wins() -> None:
    def check(room: WaitingRoom) -> None:
        parked = _parked()
        room.park(parked)
        first = News(intent=Intent(IntentMode.DRAIN, 2))
        assert parked.reply(first)
        assert not parked.reply(News()), "nobody receives the second"
        assert parked.answer.result() is first

    _on_a_loop(check)


def test_an_answered_poll_no_longer_waits() -> None:
    def check(room: WaitingRoom) -> None:
        parked = _parked()
        room.park(parked)
        assert room.get("w") is parked and list(room) == [parked]
        parked.reply(News())
        assert room.get("w") is None and list(room) == []

    _on_a_loop(check)


def test_a_poll_that_is_over_can_not_be_answered() -> None:
    def check(room: WaitingRoom) -> None:
        parked = _parked()
        room.park(parked)
        room.leave(parked)
        assert not parked.reply(News())
        assert room.get("w") is None and len(room) == 0

    _on_a_loop(check)


def test_a_newer_poll_ends_the_older_with_an_empty_reply() -> None:
    def check(room: WaitingRoom) -> None:
        older, newer = _parked(), _parked()
        room.park(older)
        room.park(newer)
        assert older.answer.result() == News()
        assert room.get("w") is newer

    _on_a_loop(check)


def test_the_end_of_an_older_poll_does_not_remove_the_newer() -> None:
    def check(room: WaitingRoom) -> None:
        older, newer = _parked(), _parked()
        room.park(older)
        room.park(newer)
        room.leave(older)
        assert room.get("w") is newer

    _on_a_loop(check)


def test_polls_of_two_workers_are_independent() -> None:
    def check(room: WaitingRoom) -> None:
        one, two = _parked("one"), _parked("two")
        room.park(one)
        room.park(two)
        assert len(room) == 2
        one.reply(News())
        assert list(room) == [two]

    _on_a_loop(check)


def test_a_closed_room_answers_all_polls_and_parks_no_more() -> None:
    def check(room: WaitingRoom) -> None:
        early, late = _parked("early"), _parked("late")
        room.park(early)
        room.close()
        room.park(late)
        assert isinstance(early_news := early.answer.result(), News) and not early_news.offers
        assert late.answer.result() == News()

    _on_a_loop(check)


def test_polls_may_be_parked_and_removed_during_an_iteration() -> None:
    def check(room: WaitingRoom) -> None:
        for name in "abc":
            room.park(_parked(name))
        for parked in room:
            room.leave(parked)
            room.park(_parked(parked.worker.id + "'"))
        assert len(room) == 3

    _on_a_loop(check)


def test_a_process_that_shuts_down_spreads_its_polls_over_time() -> None:
    def check(room: WaitingRoom) -> None:
        fleet = [_parked(f"w{number}") for number in range(400)]
        for parked in fleet:
            room.park(parked)
        room.close()
        pauses = [news.pause_s for parked in fleet if isinstance(news := parked.answer.result(), News)]
        assert len(pauses) == 400 and len(set(pauses)) > 300
        assert 0.5 < max(pauses) <= 400 / RETURNS_PER_S

    _on_a_loop(check)
