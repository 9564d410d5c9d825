"""Releases of the worker's own software that central sends: which of them workers are to run."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Boolean, Integer, String, Text, true
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.definitions.needs import LONGEST
from airflow_remote_provider.models.base import Base, exact


class ReleaseRow(Base):
    """The only row says which release is rolled out. Its columns mean what those of :class:`.RuntimeRow` mean.

    What was added are rows of :class:`.Edition` of the kind `release`, whose version is the serial.
    """

    __tablename__ = "remote_release"

    name: Mapped[str] = mapped_column(exact(63), primary_key=True)
    serial: Mapped[int] = mapped_column(Integer)
    """The serial that is rolled out; 0: none yet."""
    previous: Mapped[int] = mapped_column(Integer)
    """The serial of the workers that are not to have the rolled one; 0: none, they keep what they run."""
    built: Mapped[int] = mapped_column(Integer)
    """The newest serial; 0: nothing was added yet."""
    percent: Mapped[int] = mapped_column(Integer)
    labels: Mapped[str | None] = mapped_column(exact(LONGEST))
    halted: Mapped[str] = mapped_column(Text)
    versions: Mapped[dict[str, str]] = mapped_column(JSON)
    """Versions of the package `airflow-remote-worker`, by the digest of the tree."""
    follow: Mapped[bool] = mapped_column(Boolean, default=True, server_default=true())
    """Whether the release of a newer provider is made and rolled out without a command."""
    built_with: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    """Central's versions at the newest serial: `provider`; NULL: they were not noted."""
    trouble: Mapped[str] = mapped_column(Text)
    """Why the last release could not be added; empty: it could."""
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_by: Mapped[str] = mapped_column(String(250))
