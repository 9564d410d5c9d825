"""The objects that the routes of one API process share."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_remote_protocol.messages import TaskSettings

from airflow_remote_provider import task_settings
from airflow_remote_provider.api.admission.downloads import Downloads
from airflow_remote_provider.api.admission.failed_enrolments import FailedEnrolments
from airflow_remote_provider.api.admission.holdings import Holdings
from airflow_remote_provider.api.admission.job_lists import JobLists
from airflow_remote_provider.api.admission.lanes import Lane
from airflow_remote_provider.api.admission.rate_limits import RateLimits
from airflow_remote_provider.api.admission.turns import Turns
from airflow_remote_provider.api.admission.usage_interval import UsageInterval
from airflow_remote_provider.api.dispatch.dispatcher import Dispatcher
from airflow_remote_provider.api.duties.loop import Duties
from airflow_remote_provider.api.gateway.failures import Failures
from airflow_remote_provider.api.gateway.gateway import Gateway
from airflow_remote_provider.api.gateway.lease_cache import LeaseCache
from airflow_remote_provider.api.gateway.rights import Rights
from airflow_remote_provider.api.gateway.writes import Writes
from airflow_remote_provider.api.planned_runtimes import PlannedRuntimes
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.registry import Registry
from airflow_remote_provider.api.worker_v1.certificates import Certificates
from airflow_remote_provider.api.worker_v1.packs import Packs
from airflow_remote_provider.api.worker_v1.started_jobs import StartedJobs
from airflow_remote_provider.api.worker_v1.task_logs import TaskLogs
from airflow_remote_provider.settings import Settings
from airflow_remote_provider.stores.worker_logs import WorkerLogStore

ENROLMENTS_WAIT = 64
"""How many enrolments may wait for the check of their token, which takes some milliseconds."""

DECODED_AT_ONCE = 8


@dataclass(frozen=True)
class ApiContext:
    settings: Settings
    pool: LedgerPool
    registry: Registry
    runtimes: PlannedRuntimes
    dispatcher: Dispatcher
    duties: Duties
    gateway: Gateway
    lease_cache: LeaseCache
    rights: Rights
    task_logs: TaskLogs
    worker_logs: WorkerLogStore
    failed_enrolments: FailedEnrolments
    certificates: Certificates
    rate_limits: RateLimits
    worker_log_limits: RateLimits
    usage_limits: RateLimits
    trigger_log_limits: RateLimits
    usage_interval: UsageInterval
    writes: Writes
    unknown_callers: RateLimits
    """Limits calls with an unknown credential, or without the worker's own certificate, by the network of the source."""
    job_lists: JobLists
    packs: Packs
    downloads: Downloads
    inventory_limits: RateLimits
    task_settings: TaskSettings = field(default_factory=task_settings.read)
    """The settings of this process, which reads its configuration once, as Airflow does."""
    started_jobs: StartedJobs = field(default_factory=StartedJobs)
    failures: Failures = field(default_factory=Failures)
    holdings: Holdings = field(default_factory=Holdings)
    decoded_downloads: Downloads = field(default_factory=lambda: Downloads(DECODED_AT_ONCE))
    """Those of workers without LZMA, for which central decodes: each holds the 4 MiB of a decoder."""
    polls: Turns = field(default_factory=lambda: Turns("polls"))
    sessions: Turns = field(default_factory=lambda: Turns("sessions"))
    enrolments: Lane = field(default_factory=lambda: Lane("enrolments", at_once=2, waiting=ENROLMENTS_WAIT))
