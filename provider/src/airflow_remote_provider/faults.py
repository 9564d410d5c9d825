"""Reports failures of this package inside Airflow's processes: with cause and remedy, and each only once in the log.

No exception of this package may end the scheduler, the API server, the triggerer or a Dag processor (ADR 0029). All code that
they call catches its exceptions and reports them here.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from airflow_remote_provider import __version__

T = TypeVar("T")
D = TypeVar("D")

REPEAT_AFTER_S = 600.0
"""After this time a fault that lasts is logged again."""
RECURRENCE_AFTER_S = 60.0
"""After this time a fault that had ended and returns is logged again. An intermittent fault must not fill the log."""
MAX_CAUSE_LENGTH = 500
MAX_REASONS = 100
"""How many different reasons are remembered. A database's texts may differ each time."""

MISSING_TABLE = frozenset({"42P01", 1146})
MISSING_COLUMN = frozenset({"42703", 1054})
LOCKED = frozenset({"55P03", "40P01", "40001", 1205, 1213})
DENIED = frozenset({"42501", 1142, 1143, 1044})
"""SQLSTATEs of Postgres, error numbers of MySQL."""
NO_ANSWER = frozenset({"08", "53", "57", "58", "XX"})
"""Classes of SQLSTATEs: connection, resources, shutdown, system, internal."""
MYSQL_CLIENT = 2000
"""The first error number of MySQL's client library: no connection, or it broke."""

MIGRATE = "Run `airflow db migrate`; nothing has to be restarted"
REPORT_BUG = "This is a bug in the Remote Executor: report it with the traceback in the log"
VERSIONS = Path(__file__).parent / "migrations" / "versions"


@dataclass(frozen=True)
class Diagnosis:
    """Cause and remedy of an exception."""

    cause: str
    remedy: str
    is_transient: bool
    """The same call may succeed later without a restart of this process."""
    is_bug: bool = False
    """The log needs the traceback."""
    is_public: bool = False
    """The text may be shown to users without access to central's log: it contains no stored data and no host name."""

    def __str__(self) -> str:
        return f"{self.cause}. {self.remedy}"


class Faults:
    """The faults of one part of this package in one process. Logs each once with cause and remedy, and once when it has ended."""

    def __init__(self, log: Any, part: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._part = part
        self._clock = clock
        self._failing: dict[str, set[str]] = {}
        """Reason → the actions that fail because of it now."""
        self._reported_at: dict[str, float] = {}
        self._announced: set[str] = set()
        """Reasons that were logged, and whose end was not."""
        self._times: dict[str, int] = {}
        """How often each action has failed. The names are this package's own, so their number is small."""

    def attempt(self, what: str, call: Callable[[], T], otherwise: D) -> T | D:
        """Return the result of *call*; if it raises, report that and return *otherwise*. *what* completes "could not …"."""
        before = self._times.get(what, 0)
        try:
            result = call()
        except Exception as error:
            self.report_failure(what, error)
            return otherwise
        if self._times.get(what, 0) == before:  # else a nested call has reported a failure
            self.report_success(what)
        return result

    def report_failure(self, what: str, error: Exception) -> Diagnosis:
        """Log that *what* failed, unless that is logged already. Raises nothing."""
        self._times[what] = self._times.get(what, 0) + 1
        found = diagnose(error)
        reason = str(found)
        self.report_success(what, but=reason)
        self._failing.setdefault(reason, set()).add(what)
        if self._report(what, error, REPEAT_AFTER_S if reason in self._announced else RECURRENCE_AFTER_S):
            self._announced.add(reason)
        return found

    def report_single_failure(self, what: str, error: Exception) -> Diagnosis:
        """As :meth:`report_failure`, for an action that is not repeated here (a request), so that its end isn't known."""
        if self._report(what, error, REPEAT_AFTER_S):
            self._announced.add(str(diagnose(error)))
        return diagnose(error)

    def _report(self, what: str, error: Exception, wait_s: float) -> bool:
        found = diagnose(error)
        if is_due := self._is_due(str(found), wait_s):
            self._log.error("%s could not %s: %s", self._part, what, found, exc_info=error if found.is_bug else None)
        else:
            self._log.debug("%s could not %s", self._part, what, exc_info=error)
        return is_due

    def report_success(self, what: str, *, but: str | None = None) -> None:
        """Record that *what* works, or fails for another reason (*but*). Costs nothing without faults."""
        if not self._failing:
            return
        for reason in [reason for reason, failing in self._failing.items() if what in failing and reason != but]:
            self._failing[reason].discard(what)
            if not self._failing[reason]:
                del self._failing[reason]
                if but is None and reason in self._announced:
                    self._log.info("%s works again: it could %s. Before: %s", self._part, what, reason)
                self._announced.discard(reason)

    def _is_due(self, reason: str, wait_s: float) -> bool:
        now, before = self._clock(), self._reported_at.get(reason)
        if before is not None and now - before < wait_s:
            return False
        if len(self._reported_at) >= MAX_REASONS:
            self._reported_at.clear()
            self._announced &= self._failing.keys()
        self._reported_at[reason] = now
        return True


def diagnose(error: Exception) -> Diagnosis:
    """Return the cause of *error* and what to do about it. Raises nothing.

    May read the revision of the tables from the database; a second call for the same exception does not.
    """
    known = getattr(error, "remote_diagnosis", None)
    if isinstance(known, Diagnosis):
        return known
    try:
        found = _diagnose(error)
    except Exception:  # it reads the database and the metadata of packages
        found = _diagnose_bug(error)
    with suppress(AttributeError):  # a class with __slots__
        error.remote_diagnosis = found  # type: ignore[attr-defined]
    return found


def _diagnose(error: Exception) -> Diagnosis:
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    from airflow_remote_provider.settings import BadSetting

    if isinstance(error, BadSetting):
        remedy = "Correct it in Airflow's configuration and restart this process"
        return Diagnosis(str(error), remedy, is_transient=False, is_public=True)
    if isinstance(error, DBAPIError):
        return _diagnose_database_error(error)
    if isinstance(error, (PoolTimeout, ConnectionError, TimeoutError, socket.gaierror)):
        return _diagnose_no_answer(_first_line(error))
    if isinstance(error, OSError):
        remedy = "Check this path, its permissions and the space on its disk; it is tried again"
        return Diagnosis(f"a file can't be used: {_first_line(error)}", remedy, is_transient=True)
    if (unsupported := _explain_unsupported_airflow()) is not None:
        remedy = "Install a version of airflow-provider-remote that supports it, and restart this process"
        return Diagnosis(f"{unsupported}; {_type_and_text(error)}", remedy, is_transient=False, is_bug=True)
    return _diagnose_bug(error)


def _diagnose_bug(error: Exception) -> Diagnosis:
    return Diagnosis(_type_and_text(error), REPORT_BUG, is_transient=False, is_bug=True)


def _diagnose_database_error(error: Any) -> Diagnosis:
    code, said = _code_of(error), _first_line(error.orig)
    lower = said.lower()
    if code in LOCKED or "is locked" in lower:
        return Diagnosis(
            f"the database made it wait too long for a lock: {said}",
            "It is tried again; if this lasts, look for a transaction that stays open",
            is_transient=True,
        )
    if code in DENIED:
        return Diagnosis(
            f"the database denies it: {said}", "Give the user of [database] sql_alchemy_conn that right", is_transient=True
        )
    missing = code in MISSING_TABLE or "no such table" in lower
    if missing or code in MISSING_COLUMN or "no such column" in lower or "has no column named" in lower:
        return _diagnose_missing_table(said)
    if _is_value_error(error):
        return _diagnose_revision() or Diagnosis(
            f"the database can't store it: {said}",
            REPORT_BUG,
            is_transient=False,
            is_bug=True,
        )
    if code is None or error.connection_invalidated or (code >= MYSQL_CLIENT if isinstance(code, int) else code[:2] in NO_ANSWER):
        return _diagnose_no_answer(said)
    return _diagnose_revision() or _diagnose_no_answer(said)


def _diagnose_missing_table(said: str) -> Diagnosis:
    return _diagnose_revision() or Diagnosis(
        f"a table or column is missing in Airflow's database: {said}",
        f"{MIGRATE}. If it has been run: look at the schema (search_path) of [database] sql_alchemy_conn",
        is_transient=True,
    )


def _diagnose_revision() -> Diagnosis | None:
    """Return why the revision of the tables is unsuitable; None if it is this version's, or can't be read."""
    needed = list_known_revisions()[-1]
    found = _read_revision()
    if found == needed:
        return None
    if found == "":
        return Diagnosis(
            "the tables of the Remote Executor are not in Airflow's database", MIGRATE, is_transient=True, is_public=True
        )
    if found is None:
        return None
    if found in list_known_revisions():
        cause = (
            f"the tables of the Remote Executor have revision {found}, and airflow-provider-remote {__version__} needs {needed}"
        )
        return Diagnosis(cause, MIGRATE, is_transient=True, is_public=True)
    return Diagnosis(
        f"the tables of the Remote Executor have revision {found}, which airflow-provider-remote {__version__} doesn't know",
        "Install the version of airflow-provider-remote here that migrated the database, and restart this process",
        is_transient=True,
        is_public=True,
    )


@cache
def list_known_revisions() -> tuple[str, ...]:
    """Return the revisions that this version knows, oldest first. Each migration's file name begins with its revision."""
    return tuple(sorted(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py")))


def _read_revision() -> str | None:
    """Return the revision of the tables; empty if the tables don't exist, None if the database does not answer."""
    from sqlalchemy import inspect, text

    from airflow_remote_provider import compat

    try:
        with compat.transaction(lock_wait_s=1.0) as session:
            if not inspect(session.connection()).has_table("alembic_version_remote"):
                return ""
            return session.scalar(text("SELECT version_num FROM alembic_version_remote")) or ""
    except Exception:  # the database does not answer; another fault reports that
        return None


def _is_value_error(error: Any) -> bool:
    from sqlalchemy.exc import DataError, IntegrityError

    return isinstance(error, (DataError, IntegrityError))


def _diagnose_no_answer(said: str) -> Diagnosis:
    return Diagnosis(
        f"the database does not answer: {said}",
        "It is tried again; if this lasts, check the database and [database] sql_alchemy_conn",
        is_transient=True,
    )


def _code_of(error: Any) -> Any:
    driver = error.orig
    for name in ("sqlstate", "pgcode"):
        if (code := getattr(driver, name, None)) is not None:
            return code
    first = (getattr(driver, "args", None) or (None,))[0]
    return first if isinstance(first, int) else None


@cache
def _explain_unsupported_airflow() -> str | None:
    """Return that this version does not support the installed Airflow; None if it does."""
    from importlib.metadata import requires, version

    from packaging.requirements import Requirement

    installed = version("apache-airflow-core")
    for text in requires("airflow-provider-remote") or ():
        needed = Requirement(text)
        if needed.name in ("apache-airflow", "apache-airflow-core") and not needed.specifier.contains(
            installed, prereleases=True
        ):
            return f"airflow-provider-remote {__version__} supports Airflow {needed.specifier}, and {installed} is installed"
    return None


def _type_and_text(error: Exception) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Any) -> str:
    """Return the first line of *error*: without statement and parameters, which may come from a worker or be secret."""
    lines = str(error).strip().splitlines()
    return "".join(char if char.isprintable() else "?" for char in lines[0])[:MAX_CAUSE_LENGTH] if lines else "no text"
