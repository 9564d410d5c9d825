"""What fails of ours has a cause and a remedy, and is logged once: again when it changes or lasts, and when it is over."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow_remote_provider import compat, faults
from airflow_remote_provider.faults import AGAIN_AFTER_S, SETTLED_AFTER_S, Faults, diagnose, known_revisions
from airflow_remote_provider.settings import BadSetting

pytestmark = pytest.mark.usefixtures("database")


class _Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, text: str, *values: object, exc_info: object = None) -> None:
        self.lines.append(text % values + (" with its traceback" if exc_info else ""))

    def info(self, text: str, *values: object) -> None:
        self.lines.append(text % values)

    def debug(self, *_: object, **__: object) -> None:
        """Not for operators."""


class _Told:
    """Faults with a clock that is set by hand."""

    def __init__(self) -> None:
        self.log, self.now = _Log(), 0.0
        self.faults = Faults(self.log, "It", clock=lambda: self.now)

    def new(self) -> list[str]:
        lines, self.log.lines = self.log.lines, []
        return lines


BAD = BadSetting("[remote] poll_seconds = 'x' is no number")


def _of_database(kind: type[DBAPIError], said: str, code: str | None = None) -> DBAPIError:
    driver: Any = Exception(said)
    driver.pgcode = code
    return kind("SELECT a_secret", {"value": "a secret"}, driver)


def test_a_fault_is_logged_once_and_again_while_it_lasts() -> None:
    told = _Told()
    told.faults.occurred("work", BAD)
    assert told.new() == [f"It could not work: {BAD}. Correct it in Airflow's configuration and restart this process"]
    for told.now in (1, 100, AGAIN_AFTER_S - 1):
        told.faults.occurred("work", BadSetting(str(BAD)))
        told.faults.occurred("do other work", BadSetting(str(BAD)))
    assert told.new() == []
    told.now = AGAIN_AFTER_S
    told.faults.occurred("work", BAD)
    assert len(told.new()) == 1


def test_another_reason_is_logged_at_once() -> None:
    told = _Told()
    told.faults.occurred("work", BAD)
    told.faults.occurred("work", ConnectionError("no route to host"))
    assert [line.split(":")[1].strip() for line in told.new()] == [
        "[remote] poll_seconds = 'x' is no number. Correct it in Airflow's configuration and restart this process",
        "the database does not answer",
    ]


def test_the_end_of_a_fault_is_logged_once_everything_works_again() -> None:
    told = _Told()
    for what in ("work", "do other work"):
        told.faults.occurred(what, BAD)
    told.new()
    told.faults.over("work")
    assert told.new() == []
    told.faults.over("do other work")
    told.faults.over("do other work")
    assert [line.partition(":")[0] for line in told.new()] == ["It works again"]


def test_a_fault_that_comes_and_goes_does_not_fill_the_log() -> None:
    told = _Told()
    for told.now in range(int(SETTLED_AFTER_S)):
        told.faults.occurred("work", BAD)
        told.faults.over("work")
    assert len(told.new()) == 2, "when it began, and when it was over for the first time"
    told.now = SETTLED_AFTER_S
    told.faults.occurred("work", BAD)
    assert len(told.new()) == 1


def test_what_was_noticed_of_a_request_is_not_logged_again_by_a_loop() -> None:
    told = _Told()
    told.faults.noticed("answer a request", BAD)
    told.now = SETTLED_AFTER_S + 1
    told.faults.noticed("answer a request", BAD)
    told.faults.occurred("work", BAD)
    assert len(told.new()) == 1


def test_only_a_mistake_of_ours_is_logged_with_its_traceback() -> None:
    told = _Told()
    told.faults.occurred("work", KeyError("key"))
    told.faults.occurred("work", ConnectionError("away"))
    assert [line.endswith("with its traceback") for line in told.new()] == [True, False]


def test_attempt_returns_what_the_call_does_or_the_other_value() -> None:
    told = _Told()
    assert told.faults.attempt("work", lambda: 7, None) == 7
    assert told.faults.attempt("work", lambda: 1 / 0, "other") == "other"


@pytest.mark.parametrize(
    ("error", "cause", "heals"),
    [
        (_of_database(OperationalError, "connection refused"), "does not answer: connection refused", True),
        (
            _of_database(ProgrammingError, 'relation "task_instance" does not exist', "42P01"),
            "a table or column is missing",
            True,
        ),
        (_of_database(OperationalError, "no such column: labels"), "a table or column is missing", True),
        (_of_database(OperationalError, "lock timeout", "55P03"), "too long for a lock", True),
        (_of_database(OperationalError, "database is locked"), "too long for a lock", True),
        (_of_database(ProgrammingError, "permission denied for table remote_job", "42501"), "denies it", True),
        (_of_database(IntegrityError, "violates not-null constraint", "23502"), "can't store it", False),
        (PoolTimeout("QueuePool limit reached"), "does not answer", True),
        (BAD, "[remote] poll_seconds", False),
        (AttributeError("no attribute 'queued_tasks'"), "AttributeError: no attribute 'queued_tasks'", False),
    ],
)
def test_the_cause_and_whether_it_can_heal(error: Exception, cause: str, heals: bool) -> None:
    _revision(known_revisions()[-1])
    try:
        found = diagnose(error)
    finally:
        _revision(None)
    assert cause in found.cause and found.can_heal is heals and found.remedy
    assert "secret" not in str(found)


def _revision(revision: str | None) -> None:
    with compat.transaction() as session:
        session.execute(text("DROP TABLE IF EXISTS alembic_version_remote"))
        if revision is not None:
            session.execute(text("CREATE TABLE alembic_version_remote (version_num VARCHAR(32))"))
            session.execute(text("INSERT INTO alembic_version_remote VALUES (:revision)"), {"revision": revision})


@pytest.mark.parametrize(
    ("revision", "told"),
    [
        (None, "are not in Airflow's database. Run `airflow db migrate`; nothing has to be restarted"),
        (known_revisions()[0], f"have revision {known_revisions()[0]}, and airflow-provider-remote"),
        ("9999", "have revision 9999, which airflow-provider-remote"),
    ],
)
def test_a_missing_table_is_explained_by_the_revision_of_ours(database: Engine, revision: str | None, told: str) -> None:
    _revision(revision)
    try:
        found = diagnose(_missing())
    finally:
        _revision(None)
    assert told in str(found) and found.can_heal and found.is_public


def _missing() -> Exception:
    """Return what the database says of a table that isn't there."""
    try:
        with compat.transaction() as session:
            session.execute(text("SELECT 1 FROM remote_nothing"))
    except DBAPIError as error:
        return error
    raise AssertionError("there is such a table")


def test_an_airflow_that_we_do_not_support_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_unsupported_airflow", lambda: "it supports Airflow <3.4, and 9.0 is installed")
    found = diagnose(AttributeError("no attribute"))
    assert "9.0 is installed; AttributeError: no attribute" in found.cause and "Install a version" in found.remedy


def test_a_failure_within_an_attempt_that_hides_it_is_not_over() -> None:
    told = _Told()
    for _ in range(2):
        told.faults.attempt("work", lambda: told.faults.attempt("work", lambda: 1 / 0, None), None)
    assert [line.partition(":")[0] for line in told.new()] == ["It could not work"]
    told.faults.attempt("work", lambda: told.faults.attempt("work", lambda: 1, None), None)
    assert [line.partition(":")[0] for line in told.new()] == ["It works again"]


def test_a_full_disk_is_not_the_database() -> None:
    found = diagnose(OSError(errno.ENOSPC, "No space left on device", "/var/log/task.log"))
    assert "/var/log/task.log" in found.cause and "database" not in str(found)
    assert found.can_heal
