"""Enrolment tokens: their creator, the rights that they give, and how many uses are left."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact


class EnrolmentToken(Base):
    __tablename__ = "remote_enrolment"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    name_pattern: Mapped[str] = mapped_column(exact(100))
    queues: Mapped[list[str]] = mapped_column(JSON)
    labels: Mapped[dict[str, str] | None] = mapped_column(JSON)
    bundles: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """As :attr:`Worker.bundles`."""
    networks: Mapped[list[str] | None] = mapped_column(JSON)
    """Networks (CIDR) from which it can be used; NULL: any."""
    replaces: Mapped[str | None] = mapped_column(String(36))
    """Id of the worker to replace, whose credential is revoked when the token is used; NULL: replaces no worker."""
    team: Mapped[str | None] = mapped_column(exact(50))
    uses_left: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(250))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
