"""Jobs: one row per attempt of one workload. The row is the state."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Index, Integer, String, Text, Uuid, false
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
    """Rises with every offer, which fences off earlier holders of the job."""

    queue: Mapped[str] = mapped_column(exact(256))
    team: Mapped[str | None] = mapped_column(exact(50))
    labels: Mapped[str | None] = mapped_column(exact(LONGEST))
    """Labels that its worker must have, encoded by :func:`..definitions.needs.encode_labels`; NULL: none."""
    bundle: Mapped[str | None] = mapped_column(exact(250))
    """Its Dag bundle, which its worker must be allowed to run; NULL: it needs none, or is older than that limit of workers."""
    bundle_version: Mapped[str | None] = mapped_column(exact(250))
    """The version of its bundle that it must run; NULL: the bundle has none, or the job is older than this column."""
    dag_version: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    """Airflow's version of its Dag, whose source has a hash."""
    dag_file: Mapped[str | None] = mapped_column(Text)
    """Path of its Dag file within the bundle."""
    code_waits: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Not offered before a publisher has published or scanned its bundle again, or `code_patience_at` is over."""
    code_patience_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it no longer waits for newer code; NULL: it waits for a version, which nothing else can replace, or does not wait."""
    tree: Mapped[str | None] = mapped_column(String(64))
    """The tree that it runs, from its first offer on; NULL: its worker has the code, or it was never offered."""
    runtime: Mapped[str | None] = mapped_column(String(64))
    """The tree of the runtime from central that its last offer named; NULL: its site has the runtime, or it was never offered."""
    release: Mapped[str] = mapped_column(String(100), default="", server_default="")
    """The version of the worker's software that its last offer went to; empty: never offered, or older than this column."""
    detail: Mapped[str] = mapped_column(exact(100), default="", server_default="")
    """What its worker does before it starts, as its last poll said, for users."""
    priority: Mapped[int] = mapped_column(Integer)
    slots: Mapped[int] = mapped_column(Integer)
    owner: Mapped[str] = mapped_column(exact(100))
    """The executor (scheduler job, team) to which the end is reported; empty once it has been."""

    ti_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    dag_id: Mapped[str] = mapped_column(Text)
    run_id: Mapped[str] = mapped_column(Text)
    task_id: Mapped[str] = mapped_column(Text)
    map_index: Mapped[int] = mapped_column(Integer)
    try_number: Mapped[int] = mapped_column(Integer)
    workload: Mapped[str] = mapped_column(Text().with_variant(LONGTEXT(), "mysql"))
    """JSON of the protocol's workload of this kind, without tokens and without paths on central."""
    log_path: Mapped[str] = mapped_column(Text)
    """Relative to the log store. Never sent to a worker."""

    worker_id: Mapped[str | None] = mapped_column(String(36))
    worker_name: Mapped[str | None] = mapped_column(exact(100))
    """Kept after the worker's removal."""
    offers: Mapped[int] = mapped_column(Integer, default=0)
    """Offers that were not declined, including the accepted one."""
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deadline_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Of the offer; NULL unless offered."""
    lost_after_s: Mapped[float] = mapped_column(seconds())

    queued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    offered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    accepted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    concluded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the task's own terminal state went through the gateway: Airflow's state then comes from the task, not from a user."""
    concluded_as: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the body of that call: only its repeats are accepted. NULL: the call is older than this column."""
    stop_reason: Mapped[str | None] = mapped_column(String(16))
    stop_decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When `stop_reason` was set. The grace period for calls of the job counts from here."""
    missing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its worker opened a session that did not list it; no poll has listed it since."""
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    settled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the executor read its end, to report it to the scheduler."""

    outcome: Mapped[str | None] = mapped_column(String(16))
    exit_code: Mapped[int | None] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(Text, default="")
    site_code: Mapped[str | None] = mapped_column(String(32))
    """MD5 of the worker's Dag file, if it differs from the file that central parsed."""
    log_base: Mapped[int | None] = mapped_column(BigInteger)
    """Size of the file when this epoch's first byte arrived: a deferred task continues its file."""
    log_epoch: Mapped[int | None] = mapped_column(Integer)
    log_key: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of `log_path`, from acceptance on (or from the first byte, if that comes first): finds jobs with the same file."""
    log_successor: Mapped[str | None] = mapped_column(String(36))
    """The newer job whose log began on the same path. This job no longer writes there."""
    log_end: Mapped[int | None] = mapped_column(BigInteger)
    """Size of the file when the successor's log began. The rest of this job's log goes to a file beside it (ADR 0023)."""
    log_size: Mapped[int | None] = mapped_column(BigInteger)
    log_sha256: Mapped[str | None] = mapped_column(String(64))

    written_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Bytes reserved for the job's writes through the gateway, in blocks: an upper bound of the bytes written."""
    writes: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Calls reserved for the same, in blocks."""

    __table_args__ = (
        Index(None, "state", "queue", "priority"),
        Index(None, "worker_id", "state"),
        Index(None, "owner", "state"),  # finds what is not reported to the scheduler yet, without the history
        Index(None, "ti_id"),
        Index(None, "log_key"),
        Index(None, "ended_at"),
        Index(None, "accepted_at"),
        Index(None, "queued_at"),  # lists show the newest first, whatever the size of the history
    )
