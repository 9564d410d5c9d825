"""Our tables, in a metadata of their own (Airflow's DB-manager mechanism migrates them). Only :mod:`..ledger` writes them.

Ids and names that Airflow makes (Dag, run, task ids: 250 characters and more) are TEXT; what is indexed is VARCHAR, for MySQL.
"""

from __future__ import annotations

from airflow_remote_provider.models.access import Access
from airflow_remote_provider.models.audit import AuditEntry
from airflow_remote_provider.models.base import Base
from airflow_remote_provider.models.code import Blob, BlobPart, BundleRow, Edition, TreeRow
from airflow_remote_provider.models.deferral import Deferral
from airflow_remote_provider.models.duty import Duty
from airflow_remote_provider.models.enrolment import EnrolmentToken
from airflow_remote_provider.models.history import History
from airflow_remote_provider.models.incident import IncidentRow, NoticeRow
from airflow_remote_provider.models.job import Job
from airflow_remote_provider.models.queue import Queue
from airflow_remote_provider.models.release import ReleaseRow
from airflow_remote_provider.models.runtime import RuntimeRow
from airflow_remote_provider.models.statement import StatementRow
from airflow_remote_provider.models.usage import Usage
from airflow_remote_provider.models.worker import Worker, WorkerContact

__all__ = [
    "Access",
    "AuditEntry",
    "Base",
    "Blob",
    "BlobPart",
    "BundleRow",
    "Deferral",
    "Duty",
    "Edition",
    "EnrolmentToken",
    "History",
    "IncidentRow",
    "Job",
    "NoticeRow",
    "Queue",
    "ReleaseRow",
    "RuntimeRow",
    "StatementRow",
    "TreeRow",
    "Usage",
    "Worker",
    "WorkerContact",
]
