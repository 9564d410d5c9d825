"""The list of queues: the workers that serve them, and how long jobs wait."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from testkit.ledger import ago, change_job, record_statements, enlist, set_last_seen, queued, running  # isort: skip

from airflow_remote_protocol.messages import IntentMode
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import queues, workers
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.views import queues as view
from airflow_remote_provider.ledger.views.queues import QueueRow, list_queues, percentile
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope

pytestmark = pytest.mark.usefixtures("database")

SILENT = timedelta(seconds=90)


def _rows(scope: Scope = EVERYTHING) -> dict[str, QueueRow]:
    with compat.transaction() as session:
        return {row.queue: row for row in list_queues(session, silent_after=SILENT, scope=scope)}


def test_slots_count_only_workers_that_take_jobs_now() -> None:
    both, silent, paused = enlist("both", ["a", "b"], slots=8), enlist("silent", ["a"]), enlist("paused", ["a"])
    running(both, "b", slots=3)
    set_last_seen(silent.id, ago(minutes=5))
    with compat.transaction() as session:
        workers.set_intent(session, paused.name, IntentMode.PAUSE, by="ann")
        workers.limit_slots(session, both.name, 5, by="ann")
    rows = _rows()
    for name in ("a", "b"):
        assert (rows[name].workers, rows[name].slots, rows[name].free_slots) == (1, 5, 2)
    assert (rows["a"].running, rows["b"].running) == (0, 1)


def test_a_queue_whose_jobs_no_worker_takes_is_marked_as_unserved() -> None:
    queued("nobody")
    enlist("idle", ["idle"])
    set_last_seen(enlist("away", ["away"]).id, ago(minutes=5))
    queued("away")
    assert {name: row.is_unserved for name, row in _rows().items()} == {"nobody": True, "idle": False, "away": True}


def test_waiting_times_cover_jobs_that_began_in_the_last_hour() -> None:
    worker = enlist(slots=100)
    for seconds in range(1, 21):
        job = running(worker)
        change_job(job.job_id, queued_at=ago(minutes=10), accepted_at=ago(minutes=10, seconds=-seconds))
    old = running(worker)
    change_job(old.job_id, queued_at=ago(hours=2), accepted_at=ago(hours=1, seconds=1))
    row = _rows()["q"]
    assert row.wait_p50_s == pytest.approx(10, abs=0.5) and row.wait_p95_s == pytest.approx(19, abs=0.5)


def test_a_job_that_waited_for_hours_is_included() -> None:
    job = running(enlist())
    change_job(job.job_id, queued_at=ago(hours=5), accepted_at=ago(minutes=1))
    assert _rows()["q"].wait_p95_s == pytest.approx(5 * 3600 - 60, abs=5)


def test_a_busy_queue_does_not_hide_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "MOST_WAITS", 2)
    worker = enlist(queues=["busy", "rare"], slots=100)
    running(worker, "rare")
    for _ in range(4):
        running(worker, "busy")
    assert _rows()["rare"].wait_p50_s is not None


def test_a_queue_with_a_rule_is_listed() -> None:
    with compat.transaction() as session:
        queues.set_queue(session, "ships", lost_after_s=7200, by="bob")
    row = _rows()["ships"]
    assert (row.lost_after_s, row.changed_by, row.workers, row.wait_p50_s) == (7200, "bob", 0, None)


def test_other_teams_are_not_shown() -> None:
    enlist("red", ["q", "secret"], team="red")
    for name in ("q", "secret"):
        queued(name, team="red")
    queued("q")
    with compat.transaction() as session:
        queues.set_queue(session, "secret", lost_after_s=7200, by="bob")
    blue = _rows(Scope(teams={"blue"}))
    assert list(blue) == ["q"] and (blue["q"].workers, blue["q"].queued, blue["q"].is_unserved) == (0, 1, True)
    red = _rows(Scope(teams={"red"}))
    assert (red["q"].workers, red["q"].queued, red["secret"].lost_after_s) == (1, 2, 7200)


def test_workers_of_another_team_do_not_serve_the_jobs_of_a_team() -> None:
    enlist("red", ["q"], team="red")
    queued("q")
    assert _rows()["q"].is_unserved


def test_one_queue_is_shown_and_an_unknown_one_is_refused() -> None:
    queued("q")
    with compat.transaction() as session:
        assert view.show_queue(session, "q", silent_after=SILENT).queued == 1
        with pytest.raises(NotFound, match="'never' has no jobs, workers or rules"):
            view.show_queue(session, "never", silent_after=SILENT)


def test_the_number_of_statements_does_not_depend_on_the_fleet(database: Engine) -> None:
    for number in range(20):
        queued(f"q{number}")
        enlist(f"w{number}", [f"q{number}"])
    with record_statements(database) as statements:
        _rows()
    assert len(statements) <= 8


@pytest.mark.parametrize(
    ("ordered", "percent", "value"), [([], 50, None), ([3.0], 50, 3.0), ([1.0, 2.0, 3.0, 4.0], 50, 2.0), ([1.0, 2.0], 95, 2.0)]
)
def test_percentiles_are_existing_values(ordered: list[float], percent: float, value: float | None) -> None:
    assert percentile(ordered, percent) == value
