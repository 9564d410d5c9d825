"""The list of workers: presence, filters, orders, pages, totals and the scope of a user."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from testkit.ledger import ago, change_worker, enlist, offered, record_statements, running, set_last_seen  # isort: skip

from airflow_remote_protocol.messages import Enrolment, Facts, IntentMode, Outcome, Report
from airflow_remote_protocol.presence import Presence
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import credentials, leases, sessions, suspension, workers
from airflow_remote_provider.ledger.credentials import NewToken
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.views.page import FIRST, BadPage, Page, read_all
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.ledger.views.workers import (
    FleetCount,
    WorkerFilter,
    WorkerRow,
    count_workers,
    list_workers,
    show_worker,
)

pytestmark = pytest.mark.usefixtures("database")

SILENT = timedelta(seconds=90)
ALL = WorkerFilter()
ORDERS = ("name", "presence", "intent", "slots", "used_slots", "last_seen_at", "created_at")


def _page(page: Page = FIRST, only: WorkerFilter = ALL, scope: Scope = EVERYTHING) -> tuple[list[WorkerRow], str | None]:
    with compat.transaction() as session:
        found = list_workers(session, silent_after=SILENT, only=only, page=page, scope=scope)
    return found.rows, found.next


def _names(order: str = "", scope: Scope = EVERYTHING, **only: object) -> list[str]:
    """Return the names of the workers that match the filter *only*, in this order."""
    rows, _ = _page(Page(order=order), WorkerFilter(**only), scope)  # type: ignore[arg-type]
    return [row.name for row in rows]


def _count(scope: Scope = EVERYTHING, **only: object) -> FleetCount:
    with compat.transaction() as session:
        return count_workers(session, silent_after=SILENT, only=WorkerFilter(**only), scope=scope)  # type: ignore[arg-type]


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _one_of_each_presence() -> dict[str, str]:
    """Add one worker of each presence; return the presence by name. Each has made contact except the silent one."""
    ended = enlist("e-offline")
    enlist("a-online")
    set_last_seen(enlist("b-silent").id, ago(seconds=91))
    _do(workers.revoke_worker, enlist("d-gone").name)
    _do(sessions.end_session, ended.id, ended.session_id)
    token, _ = _do(credentials.create_token, NewToken(queues=["q"]))  # type: ignore[misc]
    never = _do(credentials.enrol, token, Enrolment("c-never", Facts()))
    _do(workers.note_contact, [never.worker_id])  # type: ignore[attr-defined] # as its `check` does
    return {
        "a-online": "online",
        "b-silent": "silent",
        "c-never": "never_connected",
        "d-gone": "gone",
        "e-offline": "offline",
    }


# Presence and activity


def test_each_worker_has_the_presence_that_central_observes() -> None:
    expected = _one_of_each_presence()
    assert {row.name: row.presence for row in _page()[0]} == expected
    assert set(expected.values()) == {presence.value for presence in Presence}


@pytest.mark.parametrize(("silent_s", "presence"), [(88, "online"), (92, "silent")])
def test_a_worker_is_silent_after_the_given_time(silent_s: float, presence: str) -> None:
    set_last_seen(enlist().id, ago(seconds=silent_s))
    assert _page()[0][0].presence == presence


def test_a_worker_without_a_stored_contact_is_silent() -> None:
    set_last_seen(enlist().id, None)
    row = _page()[0][0]
    assert (row.presence, row.last_seen_at) == ("silent", None)


def test_a_revoked_worker_is_gone_whatever_else_it_is() -> None:
    worker = enlist()
    _do(sessions.end_session, worker.id, worker.session_id)
    _do(workers.revoke_worker, worker.name)
    assert _page()[0][0].presence == "gone"


def test_used_slots_are_those_of_offers_and_running_jobs() -> None:
    busy = enlist("busy", slots=8)
    enlist("idle")
    running(busy, slots=3)
    offered(busy, slots=2)
    assert {row.name: row.used_slots for row in _page()[0]} == {"busy": 5, "idle": 0}


def test_ended_jobs_use_no_slots() -> None:
    worker = enlist()
    running_job = running(worker, slots=1)
    offered(worker, slots=2)
    _do(leases.report, running_job, Report(Outcome.SUCCEEDED))
    assert _page()[0][0].used_slots == 2


# One worker


def test_one_worker_is_shown_as_in_the_list() -> None:
    running(enlist("edge-1"), slots=2)
    with compat.transaction() as session:
        row = show_worker(session, "edge-1", silent_after=SILENT)
    assert [row] == _page()[0]


def test_a_worker_that_was_removed_or_is_outside_the_scope_is_not_found() -> None:
    enlist("red", team="red")
    _do(workers.remove_worker, enlist("removed").name)
    for name, scope in (("red", Scope(teams=["blue"])), ("removed", EVERYTHING), ("nobody", EVERYTHING)):
        with compat.transaction() as session, pytest.raises(NotFound, match=name):
            show_worker(session, name, silent_after=SILENT, scope=scope)


# Filters


def test_workers_are_filtered_by_presence() -> None:
    for name, presence in _one_of_each_presence().items():
        assert _names(presence=[presence]) == [name]


def test_several_presences_are_alternatives() -> None:
    _one_of_each_presence()
    assert _names(presence=["online", "gone"]) == ["a-online", "d-gone"]


@pytest.mark.parametrize("text", ["edge", "EDGE-1", "ge-1"])
def test_workers_are_filtered_by_a_part_of_their_name_in_any_case(text: str) -> None:
    for name in ("Edge-1", "plant"):
        enlist(name)
    assert _names(text=text) == ["Edge-1"]


def test_workers_are_filtered_by_a_part_of_their_host_name_in_any_case() -> None:
    for name in ("one", "two"):
        change_worker(enlist(name).id, facts={"hostname": f"Plant-{name}.example"})
    assert _names(text="plant-TWO") == ["two"]


@pytest.mark.parametrize("text", ["%", "_", "\\"])
def test_wildcards_in_the_text_are_literal(text: str) -> None:
    enlist("plain")
    change_worker(enlist("special").id, facts={"hostname": f"a{text}b"})
    assert _names(text=text) == ["special"]


def test_workers_are_filtered_by_intent() -> None:
    for name in ("pauses", "drains", "serves"):
        enlist(name)
    _do(workers.set_intent, "pauses", IntentMode.PAUSE, by="ann")
    _do(workers.set_intent, "drains", IntentMode.DRAIN, by="ann")
    assert _names(intent=["pause"]) == ["pauses"]
    assert _names(intent=["pause", "drain"]) == ["drains", "pauses"]


@pytest.mark.parametrize("queue", ["ships", 'a "b", [c', "Größe", "100%_"])
def test_workers_are_filtered_by_a_whole_queue(queue: str) -> None:
    enlist("first", [queue, "q"])
    enlist("last", ["q", queue])
    enlist("longer", [f"{queue}2"])
    enlist("quoted", [f'x", "{queue}'])
    assert _names(queue=queue) == ["first", "last"]


@pytest.mark.parametrize("label", [("site", "kiel"), ("note", 'a", "site": "kiel'), ("größe", "1%")])
def test_workers_are_filtered_by_a_whole_label(label: tuple[str, str]) -> None:
    key, value = label
    enlist("first", labels={key: value, "gpu": "yes"})
    enlist("last", labels={"gpu": "yes", key: value})
    enlist("other-value", labels={key: f"{value}2"})
    enlist("other-key", labels={f"x{key}": value})
    enlist("unlabelled")
    assert _names(label=label) == ["first", "last"]


def test_workers_are_filtered_by_version() -> None:
    for name, version in (("old", "1.0"), ("new", "1.0.1")):
        change_worker(enlist(name).id, facts={"hostname": "h", "version": version})
    assert _names(version="1.0") == ["old"]


def test_flagged_workers_have_an_alarm_a_suspension_or_an_unfit_runtime() -> None:
    for name in ("fine", "suspended"):
        enlist(name)
    _do(sessions.flag_clone, enlist("alarmed").id)
    _do(suspension.suspend, "suspended", by="ann")
    change_worker(enlist("unfit").id, unfit="no Airflow")
    assert _names(flagged=True) == ["alarmed", "suspended", "unfit"]


def test_all_filters_must_match() -> None:
    enlist("edge-1", ["a"])
    enlist("edge-2", ["b"])
    enlist("plant", ["a"])
    assert _names(text="edge", queue="a", presence=["online"]) == ["edge-1"]
    assert _names(text="edge", queue="a", presence=["silent"]) == []


def test_a_removed_worker_is_not_listed() -> None:
    _do(workers.remove_worker, enlist("removed").name)
    enlist("stays")
    assert _names() == ["stays"]


# Orders and pages


def _different_workers() -> None:
    """Add workers whose columns differ, each in another order than the names."""
    for number, (name, slots) in enumerate((("b", 1), ("a", 3), ("d", 2), ("c", 4))):
        worker = enlist(name, slots=slots)
        set_last_seen(worker.id, ago(seconds=10 * number))
        change_worker(worker.id, created_at=ago(days=slots))
        if name in ("a", "c"):
            running(worker, slots=slots)
    _do(workers.set_intent, "a", IntentMode.PAUSE, by="ann")
    _do(workers.revoke_worker, "d")


def test_workers_are_ordered() -> None:
    """Where several workers have the same value, only the first names are compared."""
    _different_workers()
    expected = {
        "": ["a", "b", "c", "d"],
        "name": ["a", "b", "c", "d"],
        "-name": ["d", "c", "b", "a"],
        "slots": ["b", "d", "a", "c"],
        "-slots": ["c", "a", "d", "b"],
        "created_at": ["c", "a", "d", "b"],
        "-created_at": ["b", "d", "a", "c"],
        "last_seen_at": ["c", "d", "a", "b"],
        "-last_seen_at": ["b", "a", "d", "c"],
        "-used_slots": ["c", "a"],
        "presence": ["d"],
        "intent": ["a"],
    }
    assert {order: _names(order)[: len(names)] for order, names in expected.items()} == expected


def test_pages_together_are_the_list_in_every_order() -> None:
    _different_workers()
    for order in (sign + name for name in ORDERS for sign in ("", "-")):
        names: list[str] = []
        after: str | None = ""
        while after is not None:
            rows, after = _page(Page(limit=1, after=after, order=order))
            names += [row.name for row in rows]
        assert names == _names(order) and len(names) == 4, order


def test_the_last_page_has_no_cursor() -> None:
    for name in ("a", "b", "c"):
        enlist(name)
    rows, after = _page(Page(limit=2))
    assert [row.name for row in rows] == ["a", "b"] and after is not None
    rows, after = _page(Page(limit=2, after=after))
    assert ([row.name for row in rows], after) == (["c"], None)
    assert _page(Page(limit=3))[1] is None


def test_a_page_keeps_the_filter_and_the_scope() -> None:
    for name, team in (("a-red", "red"), ("b-red", "red"), ("c-blue", "blue"), ("other", "red")):
        enlist(name, team=team)
    scope, only = Scope(teams=["red"]), WorkerFilter(text="-")
    with compat.transaction() as session:
        rows = read_all(lambda page: list_workers(session, silent_after=SILENT, only=only, page=page, scope=scope))
    assert [row.name for row in rows] == ["a-red", "b-red"]
    rows, after = _page(Page(limit=1), only, scope)
    assert [row.name for row in _page(Page(limit=1, after=after or ""), only, scope)[0]] == ["b-red"]


def test_an_unknown_order_and_a_foreign_cursor_are_refused() -> None:
    for name in ("a", "b"):
        enlist(name)
    with pytest.raises(BadPage, match="has no order by 'colour'"):
        _page(Page(order="colour"))
    _, after = _page(Page(limit=1))
    with pytest.raises(BadPage, match="does not belong to this list"):
        _page(Page(limit=1, after=after or "", order="-name"))
    for limit in (0, 1001):
        with pytest.raises(BadPage, match="1 to 1000 rows"):
            _page(Page(limit=limit))


# Totals


def test_no_workers_count_zero() -> None:
    assert _count() == FleetCount(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_workers_are_counted_by_presence() -> None:
    _one_of_each_presence()
    fleet = _count()
    assert fleet.workers == 5
    assert (fleet.online, fleet.silent, fleet.offline, fleet.never_connected, fleet.gone) == (1, 1, 1, 1, 1)


def test_flagged_and_unfit_workers_are_counted() -> None:
    enlist("fine")
    change_worker(enlist("unfit").id, unfit="no Airflow", alarm="odd")
    _do(suspension.suspend, enlist("suspended").name, by="ann")
    fleet = _count()
    assert (fleet.workers, fleet.flagged, fleet.unfit) == (3, 2, 1)


def test_slots_are_those_of_online_workers_within_their_limits() -> None:
    for name, slots in (("limited", 8), ("unlimited", 4), ("generous", 2)):
        enlist(name, slots=slots)
    _do(workers.limit_slots, "limited", 3, by="ann")
    _do(workers.limit_slots, "generous", 9, by="ann")
    set_last_seen(enlist("silent", slots=16).id, ago(minutes=5))
    assert _count().slots == 3 + 4 + 2


def test_used_slots_include_those_of_silent_workers() -> None:
    online, silent = enlist("online", ["a"]), enlist("silent", ["b"])
    running(online, "a", slots=2)
    running(silent, "b", slots=3)
    set_last_seen(silent.id, ago(minutes=5))
    assert _count().used_slots == 5


def test_totals_cover_the_workers_that_the_filter_selects() -> None:
    for name in ("edge-1", "edge-2", "plant"):
        enlist(name, slots=2)
    _do(workers.remove_worker, enlist("edge-3").name)
    fleet = _count(text="edge")
    assert (fleet.workers, fleet.online, fleet.slots) == (2, 2, 4)


# Scope


def test_a_user_sees_the_workers_of_their_teams_and_those_without_a_team() -> None:
    for name, team in (("red", "red"), ("blue", "blue"), ("shared", None)):
        enlist(name, team=team, slots=2)
    for teams, names in ((["red"], ["red", "shared"]), ([], ["shared"]), (None, ["blue", "red", "shared"])):
        scope = Scope(teams=teams)
        assert _names(scope=scope) == names
        fleet = _count(scope)
        assert (fleet.workers, fleet.slots) == (len(names), 2 * len(names))


def test_only_running_jobs_within_the_scope_are_shown() -> None:
    worker = enlist()
    running(worker, dag_id="anns")
    shown = running(worker, dag_id="toms")
    row = _page(scope=Scope(dags=["toms"]))[0][0]
    assert ([job.id for job in row.running], row.running_count, row.used_slots) == ([shown.job_id], 1, 2)


# Costs


def test_the_number_of_statements_does_not_depend_on_the_fleet(database: Engine) -> None:
    def statements() -> tuple[int, int]:
        with compat.transaction() as session, record_statements(database) as of_list:
            list_workers(session, silent_after=SILENT)
        with compat.transaction() as session, record_statements(database) as of_count:
            count_workers(session, silent_after=SILENT)
        return len(of_list), len(of_count)

    running(enlist("w"))
    few = statements()
    for number in range(10):
        running(enlist(f"w{number}", [f"q{number}"]), f"q{number}")
    assert statements() == few
    assert few[0] <= 3 and few[1] <= 2
