"""What fails of ours inside Airflow's processes: its cause and its remedy in words, and a log that names each fault once.

No exception of ours may end the scheduler, the API server, the triggerer or a Dag processor (ADR 0029). Whatever one of them
calls catches its own exceptions and reports them here.
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

AGAIN_AFTER_S = 600.0
"""How long a fault that lasts stays unreported after it was reported."""
SETTLED_AFTER_S = 60.0
"""How long after its report a fault that was over is reported again: one that comes and goes must not fill the log."""
LONGEST_CAUSE = 500
MOST_REASONS = 100
"""Most different reasons that are remembered; texts of a database may differ each time."""

MISSING_TABLE = frozenset({"42P01", 1146})
MISSING_COLUMN = frozenset({"42703", 1054})
LOCKED = frozenset({"55P03", "40P01", "40001", 1205, 1213})
DENIED = frozenset({"42501", 1142, 1143, 1044})
"""SQLSTATEs of Postgres, error numbers of MySQL."""
NO_ANSWER = frozenset({"08", "53", "57", "58", "XX"})
"""Classes of SQLSTATEs: connection, resources, shutdown, system, internal."""
MYSQL_CLIENT = 2000
"""Error numbers of MySQL's client library begin here: no connection, or it broke."""

MIGRATE = "Run `airflow db migrate`; nothing has to be restarted"
VERSIONS = Path(__file__).parent / "migrations" / "versions"


@dataclass(frozen=True)
class Diagnosis:
    """What an exception means."""

    cause: str
    remedy: str
    can_heal: bool
    """Whether the same call may succeed later without a restart of this process."""
    is_bug: bool = False
    """Whether the traceback tells more than the cause."""
    is_public: bool = False
    """Whether those who may not read central's log may read it: it says nothing of what is stored, and names no host."""

    def __str__(self) -> str:
        return f"{self.cause}. {self.remedy}"


class Faults:
    """The faults of one part of ours in one process. Each is logged once with its cause and remedy, and once when it is over."""

    def __init__(self, log: Any, part: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._part = part
        self._clock = clock
        self._failing: dict[str, set[str]] = {}
        """Reason → what fails because of it now."""
        self._reported_at: dict[str, float] = {}
        self._announced: set[str] = set()
        """Reasons that were reported, and whose end was not."""
        self._times: dict[str, int] = {}
        """How often each has failed; the names are this package's own, and few."""

    def attempt(self, what: str, call: Callable[[], T], otherwise: D) -> T | D:
        """Return what *call* returns; *otherwise* if it raises, which is reported. *what* completes "could not …"."""
        before = self._times.get(what, 0)
        try:
            result = call()
        except Exception as error:
            self.occurred(what, error)
            return otherwise
        if self._times.get(what, 0) == before:  # else a call within has reported it
            self.over(what)
        return result

    def occurred(self, what: str, error: Exception) -> Diagnosis:
        """Report that *what* could not be done, unless the log says so already. Raises nothing."""
        self._times[what] = self._times.get(what, 0) + 1
        found = diagnose(error)
        reason = str(found)
        self.over(what, but=reason)
        self._failing.setdefault(reason, set()).add(what)
        if self._report(what, error, AGAIN_AFTER_S if reason in self._announced else SETTLED_AFTER_S):
            self._announced.add(reason)
        return found

    def noticed(self, what: str, error: Exception) -> Diagnosis:
        """As :meth:`occurred`, for what is not tried again here (a request), so that its end isn't known."""
        if self._report(what, error, AGAIN_AFTER_S):
            self._announced.add(str(diagnose(error)))
        return diagnose(error)

    def _report(self, what: str, error: Exception, wait_s: float) -> bool:
        found = diagnose(error)
        if is_due := self._is_due(str(found), wait_s):
            self._log.error("%s could not %s: %s", self._part, what, found, exc_info=error if found.is_bug else None)
        else:
            self._log.debug("%s could not %s", self._part, what, exc_info=error)
        return is_due

    def over(self, what: str, *, but: str | None = None) -> None:
        """Note that *what* works, or fails for another reason (*but*). Costs nothing while all is well."""
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
        if len(self._reported_at) >= MOST_REASONS:
            self._reported_at.clear()
            self._announced &= self._failing.keys()
        self._reported_at[reason] = now
        return True


def diagnose(error: Exception) -> Diagnosis:
    """Return the cause of *error* and what to do about it. Raises nothing.

    May ask the database which revision our tables have; a second call for the same exception does not.
    """
    known = getattr(error, "remote_diagnosis", None)
    if isinstance(known, Diagnosis):
        return known
    try:
        found = _diagnosed(error)
    except Exception:  # it asks the database and the installed packages
        found = _bug(error)
    with suppress(AttributeError):  # a class with __slots__
        error.remote_diagnosis = found  # type: ignore[attr-defined]
    return found


def _diagnosed(error: Exception) -> Diagnosis:
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    from airflow_remote_provider.settings import BadSetting

    if isinstance(error, BadSetting):
        remedy = "Correct it in Airflow's configuration and restart this process"
        return Diagnosis(str(error), remedy, can_heal=False, is_public=True)
    if isinstance(error, DBAPIError):
        return _of_database(error)
    if isinstance(error, (PoolTimeout, ConnectionError, TimeoutError, socket.gaierror)):
        return _away(_first_line(error))
    if isinstance(error, OSError):
        remedy = "Check this path, its permissions and the space on its disk; it is tried again"
        return Diagnosis(f"a file can't be used: {_first_line(error)}", remedy, can_heal=True)
    if (unsupported := _unsupported_airflow()) is not None:
        remedy = "Install a version of airflow-provider-remote that supports it, and restart this process"
        return Diagnosis(f"{unsupported}; {_named(error)}", remedy, can_heal=False, is_bug=True)
    return _bug(error)


def _bug(error: Exception) -> Diagnosis:
    remedy = "This is a mistake of the Remote Executor: report it with the traceback in the log"
    return Diagnosis(_named(error), remedy, can_heal=False, is_bug=True)


def _of_database(error: Any) -> Diagnosis:
    code, said = _code_of(error), _first_line(error.orig)
    lower = said.lower()
    if code in LOCKED or "is locked" in lower:
        return Diagnosis(
            f"the database made it wait too long for a lock: {said}",
            "It is tried again; if this lasts, look for a transaction that stays open",
            can_heal=True,
        )
    if code in DENIED:
        return Diagnosis(
            f"the database denies it: {said}", "Give the user of [database] sql_alchemy_conn that right", can_heal=True
        )
    missing = code in MISSING_TABLE or "no such table" in lower
    if missing or code in MISSING_COLUMN or "no such column" in lower or "has no column named" in lower:
        return _of_tables(said)
    if _is_about_values(error):
        return _other_revision() or Diagnosis(
            f"the database can't store it: {said}",
            "This is a mistake of the Remote Executor: report it with the traceback in the log",
            can_heal=False,
            is_bug=True,
        )
    if code is None or error.connection_invalidated or (code >= MYSQL_CLIENT if isinstance(code, int) else code[:2] in NO_ANSWER):
        return _away(said)
    return _other_revision() or _away(said)


def _of_tables(said: str) -> Diagnosis:
    return _other_revision() or Diagnosis(
        f"a table or column is missing in Airflow's database: {said}",
        f"{MIGRATE}. If it has been run: look at the schema (search_path) of [database] sql_alchemy_conn",
        can_heal=True,
    )


def _other_revision() -> Diagnosis | None:
    """Return what is wrong with the revision of our tables; None if it is this version's, or can't be read."""
    needed = known_revisions()[-1]
    found = _found_revision()
    if found == needed:
        return None
    if found == "":
        return Diagnosis(
            "the tables of the Remote Executor are not in Airflow's database", MIGRATE, can_heal=True, is_public=True
        )
    if found is None:
        return None
    if found in known_revisions():
        cause = (
            f"the tables of the Remote Executor have revision {found}, and airflow-provider-remote {__version__} needs {needed}"
        )
        return Diagnosis(cause, MIGRATE, can_heal=True, is_public=True)
    return Diagnosis(
        f"the tables of the Remote Executor have revision {found}, which airflow-provider-remote {__version__} doesn't know",
        "Install the version of airflow-provider-remote here that migrated the database, and restart this process",
        can_heal=True,
        is_public=True,
    )


@cache
def known_revisions() -> tuple[str, ...]:
    """Return the revisions that this version knows, oldest first; each migration's file name begins with its own."""
    return tuple(sorted(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py")))


def _found_revision() -> str | None:
    """Return the revision of our tables; empty if there are none, None if the database doesn't tell."""
    from sqlalchemy import inspect, text

    from airflow_remote_provider import compat

    try:
        with compat.transaction(lock_wait_s=1.0) as session:
            if not inspect(session.connection()).has_table("alembic_version_remote"):
                return ""
            return session.scalar(text("SELECT version_num FROM alembic_version_remote")) or ""
    except Exception:  # the database is away; another fault says so
        return None


def _is_about_values(error: Any) -> bool:
    from sqlalchemy.exc import DataError, IntegrityError

    return isinstance(error, (DataError, IntegrityError))


def _away(said: str) -> Diagnosis:
    return Diagnosis(
        f"the database does not answer: {said}",
        "It is tried again; if this lasts, check the database and [database] sql_alchemy_conn",
        can_heal=True,
    )


def _code_of(error: Any) -> Any:
    driver = error.orig
    for name in ("sqlstate", "pgcode"):
        if (code := getattr(driver, name, None)) is not None:
            return code
    first = (getattr(driver, "args", None) or (None,))[0]
    return first if isinstance(first, int) else None


@cache
def _unsupported_airflow() -> str | None:
    """Return that the installed Airflow is none that this version supports; None if it is."""
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


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Any) -> str:
    """Return the first line of what *error* says: no statement, no parameters, which may be a worker's or secret."""
    lines = str(error).strip().splitlines()
    return "".join(char if char.isprintable() else "?" for char in lines[0])[:LONGEST_CAUSE] if lines else "no text"
