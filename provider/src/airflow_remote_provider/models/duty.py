"""Duties: the API process that holds each task that only one process performs at a time."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base


class Duty(Base):
    __tablename__ = "remote_duty"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    holder: Mapped[str] = mapped_column(String(36))
    until: Mapped[datetime] = mapped_column(UtcDateTime)
