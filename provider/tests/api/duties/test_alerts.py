"""The duty that finds incidents and delivers them: once, in order, again after a failure and after a restart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from sqlalchemy import update

from testkit.ledger import ago, enlist, set_last_seen  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties import alerts
from airflow_remote_provider.api.duties.alerts import Alerts
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger.incidents import IncidentEvent
from airflow_remote_provider.ledger.views.incidents import list_incidents
from airflow_remote_provider.models import NoticeRow
from airflow_remote_provider.settings import parse

pytestmark = pytest.mark.usefixtures("database")


@dataclass
class Chat:
    """A channel that a test can break."""

    name: str = "chat"
    trouble: Exception | None = None
    blocks: threading.Event | None = None
    events: list[tuple[str, str]] = field(default_factory=list)

    def deliver(self, events: Sequence[IncidentEvent]) -> None:
        if self.blocks is not None:
            self.blocks.wait(20)
        if self.trouble is not None:
            raise self.trouble
        self.events += [(one.event, one.subject) for one in events]


class Central:
    """One API process on duty, whose clock a test sets."""

    def __init__(self, *channels: Chat) -> None:
        self.now_s = 0.0
        self.pool = LedgerPool(1)
        self.alerts = Alerts(self.pool, parse({}), channels=lambda _: [*channels], monotonic=lambda: self.now_s)

    def observe(self, passes_s: float) -> None:
        """Look as often as the duty does, for this long. The database's clock does not pass."""
        for _ in range(int(passes_s / 10)):
            self.look()
            self.now_s += 10

    def look(self) -> bool:
        # The database's clock stands still, which the window of observation would take for a changed clock.
        self.alerts._observation._last = None if self.alerts._observation._last is None else (self.now_s, compat_now())
        with compat.transaction() as session:
            return self.alerts.look(session)

    def deliver(self) -> bool:
        return asyncio.run(self.alerts.deliver_once())


def compat_now() -> object:
    with compat.transaction() as session:
        return compat.database_now(session)


@pytest.fixture
def central_with() -> Callable[..., Central]:
    made: list[Central] = []

    def make(*channels: Chat) -> Central:
        made.append(Central(*channels))
        return made[-1]

    yield make  # type: ignore[misc]
    for one in made:
        one.pool.close()


CentralWith = Callable[..., Central]


def open_incidents() -> list[tuple[str, str, str]]:
    with compat.transaction() as session:
        return [(one.kind, one.subject, one.trouble) for one in list_incidents(session)]


def make_due() -> None:
    with compat.transaction() as session:
        session.execute(update(NoticeRow).values(next_at=ago(seconds=1)))


def test_a_silent_worker_is_one_incident_and_its_return_a_recovery(central_with: CentralWith) -> None:
    chat = Chat()
    central = central_with(chat)
    worker = enlist("edge")
    central.observe(200)
    assert open_incidents() == []
    set_last_seen(worker.id, ago(seconds=130))
    central.observe(100)
    assert open_incidents() == [("worker-silent", "edge", "")]
    assert not central.deliver()
    assert chat.events == [("begun", "edge")]
    set_last_seen(worker.id, ago(seconds=0))
    central.observe(100)
    assert open_incidents() == []
    central.deliver()
    assert chat.events == [("begun", "edge"), ("recovered", "edge")]


def test_nothing_begins_before_workers_could_reconnect_after_a_downtime_of_central(central_with: CentralWith) -> None:
    central = central_with()
    set_last_seen(enlist("edge").id, ago(hours=1))
    central.observe(100)
    assert open_incidents() == []
    central.observe(30)
    assert open_incidents() == [("worker-silent", "edge", "")]
    central.alerts.stand_down()
    central.observe(60)
    assert open_incidents() == [("worker-silent", "edge", "")]


def test_a_channel_that_fails_is_tried_again_also_by_the_next_process(central_with: CentralWith) -> None:
    chat, other = Chat(trouble=RuntimeError("secret")), Chat("other")
    central = central_with(chat, other)
    set_last_seen(enlist("edge").id, ago(seconds=130))
    central.observe(120)
    assert central.deliver()
    assert other.events == [("begun", "edge")]
    assert open_incidents() == [("worker-silent", "edge", "chat: RuntimeError")]
    chat.trouble = None
    assert central.deliver(), "its next attempt is later"
    assert chat.events == []
    make_due()
    following = central_with(chat, other)
    assert following.look(), "it looks for notices that its predecessor left"
    assert not following.deliver()
    assert chat.events == [("begun", "edge")]
    assert open_incidents() == [("worker-silent", "edge", "")]


def test_a_channel_that_hangs_delays_no_other_and_is_not_called_again(
    central_with: CentralWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "LONGEST_DELIVERY_S", 0.01)
    released = threading.Event()
    chat, other = Chat(blocks=released), Chat("other")
    central = central_with(chat, other)
    set_last_seen(enlist("edge").id, ago(seconds=130))
    central.observe(120)

    async def check() -> None:
        monkeypatch.setattr(other, "blocks", None)
        assert await central.alerts.deliver_once()
        make_due()
        assert await central.alerts.deliver_once()
        assert list(central.alerts._hung) == ["chat"]
        released.set()
        await asyncio.wait(central.alerts._hung.values())

    asyncio.run(check())
    assert chat.events == [("begun", "edge")], "it was called once"


def test_without_channels_incidents_are_found_and_no_notice_is_kept(central_with: CentralWith) -> None:
    central = central_with()
    set_last_seen(enlist("edge").id, ago(seconds=130))
    central.observe(120)
    assert open_incidents() == [("worker-silent", "edge", "")]
    with compat.transaction() as session:
        assert session.query(NoticeRow).count() == 0


def test_a_misconfigured_channel_does_not_end_the_duty() -> None:
    pool = LedgerPool(1)
    try:
        found = Alerts(pool, parse({"notifiers": "nonsense"}))
        with compat.transaction() as session:
            found.look(session)
    finally:
        pool.close()
