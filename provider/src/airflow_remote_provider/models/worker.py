"""Workers: who they are, what people want of them, what they said last; and, apart, when they were last heard of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact, seconds


class Worker(Base):
    """One enrolled worker. Presence, intent and activity are three facts in three places, never one state."""

    __tablename__ = "remote_worker"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(exact(100), unique=True)
    name_key: Mapped[str | None] = mapped_column(exact(100))
    """The name without regard to case. NULL: the worker is removed, or an older one had the same name but for its case when names
    were not compared that way."""
    credential_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the credential that it uses."""
    credential_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When that was made; NULL: with the worker."""
    credential_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """NULL: it was made before credentials ended."""
    next_hash: Mapped[str | None] = mapped_column(String(64))
    """Of the credential that was made to replace it, and not used yet."""
    next_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    past_hash: Mapped[str | None] = mapped_column(String(64))
    """Of the credential before; whoever still uses it is not the worker."""
    past_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the present one was used first."""
    rotate_asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """People want it replaced before its time."""
    restart_asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """People want its daemon to start anew; NULL again once it has."""
    restart_asked_by: Mapped[str | None] = mapped_column(String(250))
    certificate: Mapped[str | None] = mapped_column(String(500))
    """Whose client certificate its calls must come with, where central asks for one; NULL: not bound yet."""
    suspended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Refused since then, until somebody lifts it."""
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    alarm: Mapped[str] = mapped_column(Text, default="")
    """Why this worker is flagged (a clone was seen); empty: it isn't."""

    queues: Mapped[list[str]] = mapped_column(JSON)
    labels: Mapped[dict[str, str] | None] = mapped_column(JSON)
    bundles: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Globs of the Dag bundles of whose jobs it may be offered; NULL: of any."""
    team: Mapped[str | None] = mapped_column(exact(50))
    slots_limit: Mapped[int | None] = mapped_column(Integer)
    """People's upper bound of its slots; NULL: what it offers."""
    intent: Mapped[str] = mapped_column(String(16), default="serve")
    intent_revision: Mapped[int] = mapped_column(Integer, default=1)
    intent_reason: Mapped[str] = mapped_column(Text, default="")
    intent_by: Mapped[str] = mapped_column(String(250), default="")
    intent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    intent_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When central wants it to serve again by itself; NULL: never."""
    received_revision: Mapped[int | None] = mapped_column("heard_revision", Integer)
    """Of the intent that its last poll under a newer one told; NULL: none yet."""

    instance_id: Mapped[str | None] = mapped_column(String(64))
    boot_id: Mapped[str | None] = mapped_column(String(64))
    """Which start of its daemon has the session. NULL: none yet, or the last one has ended as it should."""
    previous_boot_id: Mapped[str | None] = mapped_column(String(64))
    """The start it took the session over from. If that one speaks again, two are alive: one is a copy."""
    refused_boot_id: Mapped[str | None] = mapped_column(String(64))
    """The start that was found to be a copy's."""
    session_id: Mapped[str | None] = mapped_column(String(36))
    session_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    slots: Mapped[int] = mapped_column(Integer, default=0)
    """What it offered in its session."""
    triggers: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How many triggers it hosts at most, as its session says."""
    clock_offset_s: Mapped[float | None] = mapped_column(seconds())
    """How much its wall clock was ahead of ours when its session began."""
    runtime: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    """What it reported of what its tasks run in: `airflow`, `task_sdk`, `python`, `trouble`; NULL: nothing."""
    unfit: Mapped[str | None] = mapped_column(Text)
    """Why that can't host this central's tasks; NULL: it can, or nothing was reported."""
    early_failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Jobs in a row that failed here before anything was seen of their own code."""
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)
    capabilities: Mapped[list[str] | None] = mapped_column(JSON)
    """What its session named."""

    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """Of anything an API process keeps in memory; what other processes look for."""

    __table_args__ = (
        Index(None, "name_key", unique=True),
        Index(None, "changed_at"),
        Index(None, "next_hash"),
        Index(None, "past_hash"),
    )


class WorkerContact(Base):
    """When a worker was last heard of. Apart from :class:`Worker`, so that the write of every ten seconds locks nothing else."""

    __tablename__ = "remote_presence"

    worker_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    last_seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
