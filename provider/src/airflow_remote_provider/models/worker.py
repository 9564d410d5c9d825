"""Workers: their identity, credentials, rights, intent and session; and, in a separate table, their last contact."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Boolean, Index, Integer, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact, seconds


class Worker(Base):
    """One enrolled worker. Presence, intent and activity are three facts in three places, not one state."""

    __tablename__ = "remote_worker"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(exact(100), unique=True)
    name_key: Mapped[str | None] = mapped_column(exact(100))
    """The name in folded case. NULL: the worker is removed, or another one had the same name except for case before names were
    compared that way."""
    credential_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of its present credential."""
    credential_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When that credential was made; NULL: when the worker joined."""
    credential_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """NULL: the credential does not expire, or is older than this column."""
    next_hash: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the credential that was made to replace it and has not been used yet."""
    next_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    past_hash: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the previous credential; anyone who still uses it is not the worker."""
    past_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the present credential was used first."""
    rotate_asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When a user requested a new credential; NULL again once it is in use."""
    restart_asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When a user requested a restart of its daemon; NULL again once it has restarted."""
    restart_asked_by: Mapped[str | None] = mapped_column(String(250))
    certificate: Mapped[str | None] = mapped_column(String(500))
    """Owner of the client certificate that its calls must use, where central requires one; NULL: not bound yet."""
    suspended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Refused since then, until an administrator lifts the suspension."""
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    alarm: Mapped[str] = mapped_column(Text, default="")
    """Why this worker is flagged, for example because a clone was seen; empty: not flagged."""

    queues: Mapped[list[str]] = mapped_column(JSON)
    labels: Mapped[dict[str, str] | None] = mapped_column(JSON)
    bundles: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Globs of the Dag bundles whose jobs it can run; NULL: any."""
    team: Mapped[str | None] = mapped_column(exact(50))
    slots_limit: Mapped[int | None] = mapped_column(Integer)
    """Upper bound of its slots, set by a user; NULL: as many as it offers."""
    intent: Mapped[str] = mapped_column(String(16), default="serve")
    intent_revision: Mapped[int] = mapped_column(Integer, default=1)
    intent_reason: Mapped[str] = mapped_column(Text, default="")
    intent_by: Mapped[str] = mapped_column(String(250), default="")
    intent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    intent_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its pause ends by itself; NULL: never."""
    received_revision: Mapped[int | None] = mapped_column("heard_revision", Integer)
    """Revision of the intent that the worker last confirmed; NULL: none yet."""

    instance_id: Mapped[str | None] = mapped_column(String(64))
    boot_id: Mapped[str | None] = mapped_column(String(64))
    """The start of its daemon that has the session; NULL: none yet, or the last one has shut down cleanly."""
    previous_boot_id: Mapped[str | None] = mapped_column(String(64))
    """The start from which it took over the session. If that one calls again, two are alive, and one is a copy."""
    refused_boot_id: Mapped[str | None] = mapped_column(String(64))
    """The start that was found to be a copy."""
    session_id: Mapped[str | None] = mapped_column(String(36))
    session_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    slots: Mapped[int] = mapped_column(Integer, default=0)
    """Slots that it offered in its session."""
    triggers: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Most triggers that it hosts, as given in its session."""
    clock_offset_s: Mapped[float | None] = mapped_column(seconds())
    """How far its wall clock was ahead of central's when its session began."""
    runtime: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    """Its runtime as it reported it: `airflow`, `task_sdk`, `python`, `trouble`; NULL: nothing reported."""
    unfit: Mapped[str | None] = mapped_column(Text)
    """Why its runtime can't host this central's tasks; NULL: it can, or nothing was reported."""
    early_failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Jobs in a row that failed here before their own code began."""
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)
    capabilities: Mapped[list[str] | None] = mapped_column(JSON)
    """Capabilities that were agreed for its session."""
    inventory: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True), deferred=True)
    """Digests of the trees that it reported to hold; NULL: nothing reported. Up to 67 KB, so it is read only where it is used."""

    runtimes: Mapped[list[dict[str, str]] | None] = mapped_column(JSON(none_as_null=True))
    """The runtimes from central that it reported, as :class:`..ledger.held_runtimes.Held`; NULL: nothing reported."""
    failed_runtimes: Mapped[dict[str, int] | None] = mapped_column(JSON(none_as_null=True))
    """By the name of a runtime, the newest serial that has failed here: it halts no rollout twice. NULL: none."""
    release: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The release of its own software, as :class:`..ledger.held_releases.Held`; NULL: nothing reported."""
    release_asked: Mapped[int | None] = mapped_column(Integer)
    """The serial of a release that a user wants it to have now, whatever the rollout's share; NULL: none."""

    ephemeral: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Removed when it leaves, or when it is silent for long and holds no jobs."""
    jobs_limit: Mapped[int | None] = mapped_column(Integer)
    """How many jobs it is offered at most; NULL: any number."""
    jobs_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """From when on the jobs count that were offered to it; NULL: it has no limit."""

    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """Last change of a value that API processes keep in memory; they poll for it."""

    __table_args__ = (
        Index(None, "name_key", unique=True),
        Index(None, "changed_at"),
        Index(None, "next_hash"),
        Index(None, "past_hash"),
    )


class WorkerContact(Base):
    """The last contact of a worker. Separate from :class:`Worker`, so that the write every ten seconds locks nothing else."""

    __tablename__ = "remote_presence"

    worker_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    last_seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
