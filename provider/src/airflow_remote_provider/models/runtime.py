"""Runtimes that central sends to workers: how each is built, and which of its builds workers are to have."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.definitions.needs import LONGEST
from airflow_remote_provider.models.base import Base, exact


class RuntimeRow(Base):
    """A runtime by name. Its builds are rows of :class:`.Edition` of the kind `runtime`, whose version is the serial."""

    __tablename__ = "remote_runtime"

    name: Mapped[str] = mapped_column(exact(63), primary_key=True)
    serial: Mapped[int] = mapped_column(Integer)
    """The serial that is rolled out; 0: none yet."""
    previous: Mapped[int] = mapped_column(Integer)
    """The serial of the workers that are not to have the rolled one; 0: none."""
    built: Mapped[int] = mapped_column(Integer)
    """The newest serial; 0: nothing was built yet."""
    percent: Mapped[int] = mapped_column(Integer)
    """Share of the workers with these labels that are to have the rolled serial, 0 to 100."""
    labels: Mapped[str | None] = mapped_column(exact(LONGEST))
    """Labels of the workers that are to have the rolled serial, as :func:`..definitions.needs.encode_labels`; NULL: any."""
    halted: Mapped[str] = mapped_column(Text)
    """Why only workers that have the rolled serial ready keep it; empty: the rollout is not halted."""
    recipe: Mapped[dict[str, Any]] = mapped_column(JSON)
    """How it is built: the fields of :class:`..ledger.runtimes.Recipe`."""
    built_with: Mapped[dict[str, str]] = mapped_column(JSON)
    """Central's versions at the newest build: `airflow`, `task_sdk`, `provider`."""
    trouble: Mapped[str] = mapped_column(Text)
    """Why the last build failed, for one platform or for all; empty: it did not fail."""
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_by: Mapped[str] = mapped_column(String(250))
