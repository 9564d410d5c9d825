"""Jobs: one row per attempt of one workload. The row is the state."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, Index, Integer, String, Text, Uuid
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.definitions.needs import LONGEST
from airflow_remote_provider.models.base import Base, exact, seconds


class Job(Base):
    __tablename__ = "remote_job"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """The task instance's `external_executor_id`, which the scheduler assigns when it queues the task; the callback's or the
    connection test's own id."""
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    epoch: Mapped[int] = mapped_column(Integer, default=0)
    """Rises with every offer; fences off whoever held the job before."""

    queue: Mapped[str] = mapped_column(exact(256))
    team: Mapped[str | None] = mapped_column(exact(50))
    labels: Mapped[str | None] = mapped_column(exact(LONGEST))
    """What its worker must have, as :func:`..needs.spelled`; NULL: nothing."""
    bundle: Mapped[str | None] = mapped_column(exact(250))
    """The name of its Dag bundle, which its worker must be allowed; NULL: it needs none, or came before workers had limits."""
    priority: Mapped[int] = mapped_column(Integer)
    slots: Mapped[int] = mapped_column(Integer)
    owner: Mapped[str] = mapped_column(exact(100))
    """The executor (scheduler job, team) that wants to hear the end; empty once it has."""

    ti_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    dag_id: Mapped[str] = mapped_column(Text)
    run_id: Mapped[str] = mapped_column(Text)
    task_id: Mapped[str] = mapped_column(Text)
    map_index: Mapped[int] = mapped_column(Integer)
    try_number: Mapped[int] = mapped_column(Integer)
    workload: Mapped[str] = mapped_column(Text().with_variant(LONGTEXT(), "mysql"))
    """JSON of the protocol's workload of this kind: no token, no path of ours."""
    log_path: Mapped[str] = mapped_column(Text)
    """Relative to the log store; central's, never told to a worker."""

    worker_id: Mapped[str | None] = mapped_column(String(36))
    worker_name: Mapped[str | None] = mapped_column(exact(100))
    """Kept after the worker's removal."""
    offers: Mapped[int] = mapped_column(Integer, default=0)
    """Offers that nobody accepted so far."""
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deadline_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Of the offer; NULL unless offered."""
    lost_after_s: Mapped[float] = mapped_column(seconds())

    queued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    offered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    accepted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    concluded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The task's own terminal state went through the gateway: what Airflow shows now is the task's word, not a person's."""
    concluded_as: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the call that said so: only its repeats are accepted. NULL: it was not JSON, or came before this column."""
    stop_reason: Mapped[str | None] = mapped_column(String(16))
    stop_decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When `stop_reason` was set: the time until which the job may still call central counts from here."""
    missing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Its worker opened a session then that did not list it, and no poll has listed it since."""
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    settled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The executor has told the scheduler."""

    outcome: Mapped[str | None] = mapped_column(String(16))
    exit_code: Mapped[int | None] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(Text, default="")
    site_code: Mapped[str | None] = mapped_column(String(32))
    """MD5 of the worker's Dag file, where it is not the one that central parsed."""
    log_base: Mapped[int | None] = mapped_column(BigInteger)
    """Size of the log when this epoch's first byte came: a deferred task continues its file."""
    log_epoch: Mapped[int | None] = mapped_column(Integer)
    log_key: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of `log_path`, from acceptance on (or from the first byte, if that comes first): finds jobs with the same file."""
    log_successor: Mapped[str | None] = mapped_column(String(36))
    """The newer job whose log began on the same path. This job writes nothing more there."""
    log_end: Mapped[int | None] = mapped_column(BigInteger)
    """Size of the file when the successor's log began: what remains of this job's log is kept beside it (ADR 0023)."""
    log_size: Mapped[int | None] = mapped_column(BigInteger)
    log_sha256: Mapped[str | None] = mapped_column(String(64))

    written_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Reserved by API processes for what the job writes through the gateway; they reserve blocks, so it wrote no more."""
    writes: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Calls, likewise."""

    __table_args__ = (
        Index(None, "state", "queue", "priority"),
        Index(None, "worker_id", "state"),
        Index(None, "owner", "state"),  # what the scheduler has not heard yet, whatever history there is
        Index(None, "ti_id"),
        Index(None, "log_key"),
        Index(None, "ended_at"),
        Index(None, "accepted_at"),
        Index(None, "queued_at"),  # people read the newest first, whatever history there is
    )
