"""Central by its database: each call in a transaction of its own, in the name of who is logged in on this machine."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from airflow_remote_protocol.messages import IntentMode
from sqlalchemy.exc import SQLAlchemyError

from airflow_remote_provider import compat
from airflow_remote_provider.cli.words import CentralUnavailable
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.faults import diagnose
from airflow_remote_provider.ledger import (
    certificates,
    credentials,
    grants,
    jobs,
    queue_policy,
    queues,
    restarts,
    rotation,
    suspension,
    workers,
)
from airflow_remote_provider.ledger.credentials import NewToken, TokenRow
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.history import SeriesKind
from airflow_remote_provider.ledger.queue_policy import Mode, PolicyRow
from airflow_remote_provider.ledger.views.accesses import AccessFilter, AccessRow, list_accesses
from airflow_remote_provider.ledger.views.audit import AuditFilter, AuditRow, list_entries
from airflow_remote_provider.ledger.views.history import HistoryRow, list_history
from airflow_remote_provider.ledger.views.jobs import JobFilter, JobRow, list_jobs, show_job
from airflow_remote_provider.ledger.views.page import Slice, read_all
from airflow_remote_provider.ledger.views.queues import QueueRow, list_queues
from airflow_remote_provider.ledger.views.summary import Summary, summarize
from airflow_remote_provider.ledger.views.waiting import why_waiting
from airflow_remote_provider.ledger.views.workers import WorkerFilter, WorkerRow, list_workers, show_worker
from airflow_remote_provider.settings import settings, silent_after
from airflow_remote_provider.stores.worker_log_lines import LogLines, read_lines
from airflow_remote_provider.stores.worker_logs import WorkerLogStore

T = TypeVar("T")


class Database:
    """Implements :class:`.central.Central`."""

    def create_token(self, new: NewToken) -> tuple[str, TokenRow]:
        return _done(credentials.create_token, replace(new, created_by=_me()))

    def list_tokens(self) -> list[TokenRow]:
        return _done(credentials.list_tokens)

    def revoke_token(self, token_id: str) -> None:
        _done(credentials.revoke_token, token_id, by=_me())

    def list_workers(self, only: WorkerFilter) -> list[WorkerRow]:
        return _all(list_workers, only=only, silent_after=silent_after())

    def summarize(self) -> Summary:
        return _done(summarize, silent_after=silent_after())

    def show_worker(self, name: str) -> WorkerRow:
        return _done(show_worker, name, silent_after=silent_after())

    def set_intent(self, name: str, mode: IntentMode, *, reason: str, lasts: timedelta | None) -> None:
        _done(workers.set_intent, name, mode, by=_me(), reason=reason, lasts=lasts)

    def limit_slots(self, name: str, slots: int | None) -> None:
        _done(workers.limit_slots, name, slots, by=_me())

    def set_queues(self, name: str, queues: Sequence[str]) -> None:
        _done(workers.set_queues, name, queues, by=_me())

    def set_labels(self, name: str, labels: Mapping[str, str]) -> None:
        _done(workers.set_labels, name, labels, by=_me())

    def set_bundles(self, name: str, bundles: Sequence[str]) -> None:
        _done(workers.set_bundles, name, bundles, by=_me())

    def read_log(self, name: str, *, most: int, after: int | None, contains: str, level: str) -> LogLines:
        store, worker = WorkerLogStore(settings().worker_log_bytes), self.show_worker(name)
        return read_lines(store, worker.id, most=most, after=after, contains=contains, level=level)

    def restart(self, name: str, *, reason: str) -> None:
        _done(restarts.request_restart, name, by=_me(), reason=reason)

    def rotate(self, name: str) -> None:
        _done(rotation.request_rotation, name, by=_me())

    def rebind(self, name: str) -> None:
        _done(certificates.rebind, name, by=_me())

    def suspend(self, name: str, *, reason: str) -> None:
        _done(suspension.suspend, name, by=_me(), reason=reason)

    def unsuspend(self, name: str) -> None:
        _done(suspension.unsuspend, name, by=_me())

    def acknowledge(self, name: str) -> None:
        _done(workers.acknowledge, name, by=_me())

    def revoke_worker(self, name: str) -> None:
        _done(workers.revoke_worker, name, by=_me())

    def remove_worker(self, name: str) -> None:
        _done(workers.remove_worker, name, by=_me())

    def list_history(self, kind: SeriesKind, names: Sequence[str], *, last: timedelta) -> list[HistoryRow]:
        return _done(list_history, kind, names=names, last=last)

    def list_jobs(self, only: JobFilter, *, most: int) -> list[JobRow]:
        return _all(list_jobs, only=only, most=most)

    def show_job(self, job_id: str) -> JobRow:
        return _done(show_job, job_id)

    def why_waiting(self, job_id: str) -> str:
        return _done(why_waiting, job_id, silent_after=silent_after())

    def stop_job(self, job_id: str, *, reason: str) -> None:
        _done(jobs.stop, job_id, by=_me(), reason=reason)

    def list_queues(self) -> list[QueueRow]:
        return _done(list_queues, silent_after=silent_after())

    def set_queue(self, name: str, *, lost_after_s: float) -> None:
        _done(queues.set_queue, name, lost_after_s=lost_after_s, by=_me())

    def unset_queue(self, name: str) -> None:
        _done(queues.unset_queue, name, by=_me())

    def list_policies(self) -> list[PolicyRow]:
        return _done(queue_policy.list_policies)

    def allow(self, queue: str, globs: Mapping[GrantKind, Sequence[str]]) -> PolicyRow:
        return _done(queue_policy.allow, queue, globs, by=_me())

    def deny(self, queue: str, globs: Mapping[GrantKind, Sequence[str]]) -> PolicyRow:
        return _done(queue_policy.deny, queue, globs, by=_me())

    def set_mode(self, queue: str, mode: Mode) -> PolicyRow:
        return _done(queue_policy.set_mode, queue, mode, by=_me())

    def list_accesses(self, only: AccessFilter, *, most: int) -> list[AccessRow]:
        return _all(list_accesses, only=only, most=most)

    def suggest(self, dag_id: str) -> dict[str, dict[GrantKind, list[str]]]:
        return _done(grants.suggest, dag_id)

    def list_entries(self, only: AuditFilter, *, most: int) -> list[AuditRow]:
        return _all(list_entries, only=only, most=most)


def _done(verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Return what the verb or view returns; what it refuses ends the command with its sentence."""
    try:
        with compat.transaction() as session:
            return verb(session, *args, **kwargs)
    except LedgerError as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise CentralUnavailable(str(diagnose(error))) from None


def _all(view: Callable[..., Slice[T]], *, most: int | None = None, **wanted: Any) -> list[T]:
    """Return the rows of all pages of a view, or the first *most*."""
    return read_all(lambda page: _done(view, page=page, **wanted), most=most)


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
