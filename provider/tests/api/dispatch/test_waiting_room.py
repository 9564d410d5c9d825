"""Parked polls: each is answered at most once, and nothing is told to one that is over."""

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


def test_whoever_tells_first_wins() -> None:
    def check(room: WaitingRoom) -> None:
        parked = _parked()
        room.park(parked)
        first = News(intent=Intent(IntentMode.DRAIN, 2))
        assert parked.tell(first)
        assert not parked.tell(News()), "the second did not reach anybody"
        assert parked.answer.result() is first

    _on_a_loop(check)


def test_an_answered_poll_no_longer_waits() -> None:
    def check(room: WaitingRoom) -> None:
        parked = _parked()
        room.park(parked)
        assert room.get("w") is parked and list(room) == [parked]
        parked.tell(News())
        assert room.get("w") is None and list(room) == []

    _on_a_loop(check)


def test_nothing_can_be_told_to_a_poll_that_is_over() -> None:
    def check(room: WaitingRoom) -> None:
        parked = _parked()
        room.park(parked)
        room.leave(parked)
        assert not parked.tell(News())
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


def test_the_older_polls_leaving_does_not_take_the_newer_along() -> None:
    def check(room: WaitingRoom) -> None:
        older, newer = _parked(), _parked()
        room.park(older)
        room.park(newer)
        room.leave(older)
        assert room.get("w") is newer

    _on_a_loop(check)


def test_workers_do_not_disturb_each_other() -> None:
    def check(room: WaitingRoom) -> None:
        one, two = _parked("one"), _parked("two")
        room.park(one)
        room.park(two)
        assert len(room) == 2
        one.tell(News())
        assert list(room) == [two]

    _on_a_loop(check)


def test_a_closing_room_answers_all_and_lets_nobody_wait() -> None:
    def check(room: WaitingRoom) -> None:
        early, late = _parked("early"), _parked("late")
        room.park(early)
        room.close()
        room.park(late)
        assert isinstance(early_news := early.answer.result(), News) and not early_news.offers
        assert late.answer.result() == News()

    _on_a_loop(check)


def test_polls_may_come_and_go_while_one_walks_through_the_room() -> None:
    def check(room: WaitingRoom) -> None:
        for name in "abc":
            room.park(_parked(name))
        for parked in room:
            room.leave(parked)
            room.park(_parked(parked.worker.id + "'"))
        assert len(room) == 3

    _on_a_loop(check)


def test_a_process_that_ends_sends_its_polls_to_the_next_one_in_a_while_not_in_a_moment() -> None:
    def check(room: WaitingRoom) -> None:
        fleet = [_parked(f"w{number}") for number in range(400)]
        for parked in fleet:
            room.park(parked)
        room.close()
        pauses = [news.pause_s for parked in fleet if isinstance(news := parked.answer.result(), News)]
        assert len(pauses) == 400 and len(set(pauses)) > 300
        assert 0.5 < max(pauses) <= 400 / RETURNS_PER_S

    _on_a_loop(check)
