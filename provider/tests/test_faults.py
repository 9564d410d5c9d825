"""A failure is logged once with cause and remedy, again when it changes or lasts, and when it has ended."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow_remote_provider import compat, faults
from airflow_remote_provider.faults import RECURRENCE_AFTER_S, REPEAT_AFTER_S, Faults, diagnose, list_known_revisions
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


class _Reports:
    """Faults with a clock that is set by hand."""

    def __init__(self) -> None:
        self.log, self.now = _Log(), 0.0
        self.faults = Faults(self.log, "It", clock=lambda: self.now)

    def new(self) -> list[str]:
        lines, self.log.lines = self.log.lines, []
        return lines


BAD = BadSetting("[remote] poll_seconds = 'x' is not a number")


def _of_database(kind: type[DBAPIError], said: str, code: str | None = None) -> DBAPIError:
    driver: Any = Exception(said)
    driver.pgcode = code
    return kind("SELECT a_secret", {"value": "a secret"}, driver)


def test_a_fault_is_logged_once_and_again_while_it_lasts() -> None:
    reports = _Reports()
    reports.faults.report_failure("work", BAD)
    assert reports.new() == [f"It could not work: {BAD}. Correct it in Airflow's configuration and restart this process"]
    for reports.now in (1, 100, REPEAT_AFTER_S - 1):
        reports.faults.report_failure("work", BadSetting(str(BAD)))
        reports.faults.report_failure("do other work", BadSetting(str(BAD)))
    assert reports.new() == []
    reports.now = REPEAT_AFTER_S
    reports.faults.report_failure("work", BAD)
    assert len(reports.new()) == 1


def test_another_reason_is_logged_at_once() -> None:
    reports = _Reports()
    reports.faults.report_failure("work", BAD)
    reports.faults.report_failure("work", ConnectionError("no route to host"))
    assert [line.split(":")[1].strip() for line in reports.new()] == [
        "[remote] poll_seconds = 'x' is not a number. Correct it in Airflow's configuration and restart this process",
        "the database does not answer",
    ]


def test_the_end_of_a_fault_is_logged_once_everything_works_again() -> None:
    reports = _Reports()
    for what in ("work", "do other work"):
        reports.faults.report_failure(what, BAD)
    reports.new()
    reports.faults.report_success("work")
    assert reports.new() == []
    reports.faults.report_success("do other work")
    reports.faults.report_success("do other work")
    assert [line.partition(":")[0] for line in reports.new()] == ["It works again"]


def test_an_intermittent_fault_does_not_fill_the_log() -> None:
    reports = _Reports()
    for reports.now in range(int(RECURRENCE_AFTER_S)):
        reports.faults.report_failure("work", BAD)
        reports.faults.report_success("work")
    assert len(reports.new()) == 2, "when it began, and when it had ended for the first time"
    reports.now = RECURRENCE_AFTER_S
    reports.faults.report_failure("work", BAD)
    assert len(reports.new()) == 1


def test_a_failure_of_a_request_is_not_logged_again_by_a_loop() -> None:
    reports = _Reports()
    reports.faults.report_single_failure("answer a request", BAD)
    reports.now = RECURRENCE_AFTER_S + 1
    reports.faults.report_single_failure("answer a request", BAD)
    reports.faults.report_failure("work", BAD)
    assert len(reports.new()) == 1


def test_only_a_bug_is_logged_with_its_traceback() -> None:
    reports = _Reports()
    reports.faults.report_failure("work", KeyError("key"))
    reports.faults.report_failure("work", ConnectionError("away"))
    assert [line.endswith("with its traceback") for line in reports.new()] == [True, False]


def test_attempt_returns_the_result_or_the_other_value() -> None:
    reports = _Reports()
    assert reports.faults.attempt("work", lambda: 7, None) == 7
    assert reports.faults.attempt("work", lambda: 1 / 0, "other") == "other"


@pytest.mark.parametrize(
    ("error", "cause", "is_transient"),
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
def test_the_cause_and_whether_it_is_transient(error: Exception, cause: str, is_transient: bool) -> None:
    _revision(list_known_revisions()[-1])
    try:
        found = diagnose(error)
    finally:
        _revision(None)
    assert cause in found.cause and found.is_transient is is_transient and found.remedy
    assert "secret" not in str(found)


def _revision(revision: str | None) -> None:
    with compat.transaction() as session:
        session.execute(text("DROP TABLE IF EXISTS alembic_version_remote"))
        if revision is not None:
            session.execute(text("CREATE TABLE alembic_version_remote (version_num VARCHAR(32))"))
            session.execute(text("INSERT INTO alembic_version_remote VALUES (:revision)"), {"revision": revision})


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        (None, "are not in Airflow's database. Run `airflow db migrate`; nothing has to be restarted"),
        (list_known_revisions()[0], f"have revision {list_known_revisions()[0]}, and airflow-provider-remote"),
        ("9999", "have revision 9999, which airflow-provider-remote"),
    ],
)
def test_a_missing_table_is_explained_by_the_revision_of_the_tables(
    database: Engine, revision: str | None, expected: str
) -> None:
    _revision(revision)
    try:
        found = diagnose(_missing())
    finally:
        _revision(None)
    assert expected in str(found) and found.is_transient and found.is_public


def _missing() -> Exception:
    """Return the database's error for a missing table."""
    try:
        with compat.transaction() as session:
            session.execute(text("SELECT 1 FROM remote_nothing"))
    except DBAPIError as error:
        return error
    raise AssertionError("the table exists")


def test_an_unsupported_airflow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_explain_unsupported_airflow", lambda: "it supports Airflow <3.4, and 9.0 is installed")
    found = diagnose(AttributeError("no attribute"))
    assert "9.0 is installed; AttributeError: no attribute" in found.cause and "Install a version" in found.remedy


def test_a_failure_in_a_nested_attempt_has_not_ended() -> None:
    reports = _Reports()
    for _ in range(2):
        reports.faults.attempt("work", lambda: reports.faults.attempt("work", lambda: 1 / 0, None), None)
    assert [line.partition(":")[0] for line in reports.new()] == ["It could not work"]
    reports.faults.attempt("work", lambda: reports.faults.attempt("work", lambda: 1, None), None)
    assert [line.partition(":")[0] for line in reports.new()] == ["It works again"]


def test_a_full_disk_is_not_reported_as_a_database_failure() -> None:
    found = diagnose(OSError(errno.ENOSPC, "No space left on device", "/var/log/task.log"))
    assert "/var/log/task.log" in found.cause and "database" not in str(found)
    assert found.is_transient
