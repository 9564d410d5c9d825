"""What follows from what, for a release."""

from __future__ import annotations

import msgspec
from airflow_remote_worker.update import record as records
from airflow_remote_worker.update.record import MAX_FAILED, MAX_TRIES, Record, Release

OLD, NEW = Release("0.1.0", 1, "a" * 64), Release("0.2.0", 2, "b" * 64)


def test_a_release_is_on_trial_until_it_is_proven() -> None:
    begun = records.note_try(records.begin(Record(current=OLD), NEW))
    assert (begun.on_trial, begun.current, begun.tries) == (NEW, OLD, 1)
    assert records.prove(begun) == Record(current=NEW, previous=OLD)


def test_a_trial_that_is_given_up_leaves_the_current_release() -> None:
    given_up = records.give_up(records.note_try(records.begin(Record(current=OLD), NEW)), "it crashed")
    assert (given_up.on_trial, given_up.current) == (None, OLD)
    assert NEW.tree in given_up.trees
    assert records.blame(given_up) == Record(current=OLD, failed={"2": "it crashed"})


def test_tries_of_one_release_add_up_and_another_one_starts_at_none() -> None:
    record = Record(current=OLD)
    for _ in range(MAX_TRIES):
        record = records.give_up(records.note_try(records.begin(record, NEW)), "central was away")
    assert record.tries == MAX_TRIES
    assert records.begin(record, Release("0.3.0", 3, "c" * 64)).tries == 0


def test_the_one_before_stays_when_the_same_tree_is_proven_again() -> None:
    record = records.prove(records.begin(records.prove(records.begin(Record(current=OLD), NEW)), NEW))
    assert record.previous == OLD
    assert records.renumber(record, 5).current == Release("0.2.0", 5, "b" * 64)


def test_few_failures_are_remembered_the_newest() -> None:
    record = Record()
    for serial in range(1, MAX_FAILED + 5):
        record = records.note_failed(record, serial, "broken")
    assert [int(serial) for serial in record.failed] == list(range(5, MAX_FAILED + 5))


def test_a_record_of_a_later_release_can_be_read() -> None:
    body = msgspec.json.encode({**msgspec.to_builtins(Record(current=OLD)), "more": [1], "floor": 3})
    assert msgspec.json.decode(body, type=Record) == Record(current=OLD)
