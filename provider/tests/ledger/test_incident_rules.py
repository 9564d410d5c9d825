"""When a condition begins an incident and when it ends one; and a day of bad network without a false alarm."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from airflow_remote_provider.ledger.incident_rules import MOST_OPEN, RECOVERS_AFTER_S, Condition, IncidentKind, IncidentRules
from airflow_remote_provider.settings import OPTIONS

SILENT = Condition(IncidentKind.WORKER_SILENT, "edge", "the worker edge is silent")
UNSERVED = Condition(IncidentKind.QUEUE_UNSERVED, "q", "no worker takes jobs of q")


class Table:
    """The open incidents, and what was decided, as the process on duty keeps them."""

    def __init__(self) -> None:
        self.rules = IncidentRules()
        self.known: dict[str, IncidentKind] = {}
        self.events: list[tuple[str, str]] = []

    def look(
        self, *found: Condition, at: float, may_begin: bool = True, kinds: frozenset[IncidentKind] = frozenset(IncidentKind)
    ) -> None:
        decided = self.rules.decide(found, self.known, looked_at=kinds, now_s=at, may_begin=may_begin)
        for one in decided.begun:
            assert one.key not in self.known, "an incident is open only once"
            self.known[one.key] = one.kind
            self.events.append(("begun", one.subject))
        for key in decided.recovered:
            del self.known[key]
            self.events.append(("recovered", key))


def test_a_condition_is_one_incident_however_long_it_lasts() -> None:
    table = Table()
    for at in range(0, 3600, 10):
        table.look(SILENT, at=at)
    assert table.events == [("begun", "edge")]


def test_it_recovers_once_the_condition_was_absent_for_a_while() -> None:
    table = Table()
    table.look(SILENT, at=0)
    table.look(at=10)
    table.look(at=10 + RECOVERS_AFTER_S - 1)
    assert table.events == [("begun", "edge")]
    table.look(at=10 + RECOVERS_AFTER_S)
    assert table.events == [("begun", "edge"), ("recovered", SILENT.key)]
    assert table.known == {}


def test_a_condition_that_comes_and_goes_is_one_incident() -> None:
    table = Table()
    for at in range(0, 600, 20):
        table.look(SILENT, at=at)
        table.look(at=at + 10)
    assert table.events == [("begun", "edge")]


def test_a_queue_is_unserved_for_a_minute_before_that_is_an_incident() -> None:
    table = Table()
    table.look(UNSERVED, at=0)
    table.look(UNSERVED, at=30)
    table.look(at=40)  # a worker came
    table.look(UNSERVED, at=50)
    table.look(UNSERVED, at=109)
    assert table.events == []
    table.look(UNSERVED, at=110)
    assert table.events == [("begun", "q")]


def test_nothing_begins_while_central_has_not_observed_the_fleet_long_enough() -> None:
    table = Table()
    table.look(SILENT, at=0, may_begin=False)
    assert table.events == []
    table.look(SILENT, at=10)
    assert table.events == [("begun", "edge")]


def test_kinds_that_were_not_looked_at_do_not_recover() -> None:
    table = Table()
    table.look(UNSERVED, at=0)
    table.look(UNSERVED, at=60)
    for at in range(70, 300, 10):
        table.look(at=at, kinds=frozenset({IncidentKind.WORKER_SILENT}))
    assert table.events == [("begun", "q")]


def test_the_wait_for_a_kind_that_was_not_looked_at_goes_on() -> None:
    table = Table()
    table.look(UNSERVED, at=0)
    table.look(at=10, kinds=frozenset({IncidentKind.WORKER_SILENT}))
    table.look(UNSERVED, at=60)
    assert table.events == [("begun", "q")]


def test_open_incidents_are_bounded() -> None:
    table = Table()
    fleet = [Condition(IncidentKind.WORKER_SILENT, f"w{number}", "") for number in range(MOST_OPEN + 50)]
    table.look(*fleet, at=0)
    assert len(table.known) == MOST_OPEN


def test_the_same_subject_in_two_teams_is_two_incidents() -> None:
    one, other = (Condition(IncidentKind.QUEUE_UNSERVED, "q", "", team) for team in (None, "red"))
    assert one.key != other.key


# A day of bad network, simulated with the protocol's own intervals.

POLL_S = OPTIONS["poll_seconds"].default
SILENT_S = OPTIONS["alert_silent_seconds"].default
GIVES_UP_LATER_S, CONNECTS_S, FIRST_WAIT_S, LONGEST_WAIT_S = 15.0, 10.0, 1.0, 30.0
"""A worker gives up a poll without an answer 15 s late, connects for up to 10 s, and backs off from 1 s to 30 s."""
STORED_EVERY_S, LOOKS_EVERY_S = 10.0, 10.0
DAY_S = 24 * 3600.0


def contacts(chance: random.Random, until_s: float) -> Iterator[float]:
    """Yield when central receives a call of a worker: on a line that breaks every few minutes, often without a trace."""
    at, wait_s = chance.uniform(0, POLL_S), FIRST_WAIT_S
    outage_at, outage_s = at + chance.expovariate(1 / 300), 0.0
    while at < until_s:
        if at > outage_at + outage_s:
            outage_at, outage_s = at + chance.expovariate(1 / 300), min(20.0, chance.expovariate(1 / 8))
        if outage_at <= at <= outage_at + outage_s:  # this connection fails, at once or after its timeout
            at += chance.choice((0.1, CONNECTS_S)) + chance.uniform(0.5, 1) * wait_s
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
            continue
        yield at
        wait_s = FIRST_WAIT_S
        broken = chance.random()
        if broken < 0.03:  # a NAT forgot the connection: neither side notices
            at += POLL_S + GIVES_UP_LATER_S + chance.uniform(0.5, 1) * wait_s
        elif broken < 0.2:  # reset
            at += chance.uniform(0, POLL_S) + chance.uniform(0.5, 1) * wait_s
        else:
            at += POLL_S


def incidents_of(calls: list[float], until_s: float, phase_s: float) -> list[float]:
    """Return when central's looks begin an incident, as contacts are stored in rounds and read in looks."""
    table, stored, next_call, began = Table(), phase_s, 0, []
    at = phase_s
    while at < until_s:
        while next_call < len(calls) and calls[next_call] <= at:
            stored, next_call = at, next_call + 1
        silent = [SILENT] if at - stored > SILENT_S else []
        before = len(table.events)
        table.look(*silent, at=at)
        began += [at for event, _ in table.events[before:] if event == "begun"]
        at += LOOKS_EVERY_S
    return began


@pytest.mark.parametrize("seed", range(3))
def test_a_day_of_bad_network_is_no_incident(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(5):
        calls = list(contacts(chance, DAY_S))
        assert incidents_of(calls, DAY_S, chance.uniform(0, STORED_EVERY_S)) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_ends_is_an_incident_within_two_minutes(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        end_s = chance.uniform(1000, 5000)
        calls = list(contacts(chance, end_s))
        (at,) = incidents_of(calls, end_s + 600, chance.uniform(0, STORED_EVERY_S))
        assert calls[-1] < at <= calls[-1] + 120
        assert at <= end_s + 120
