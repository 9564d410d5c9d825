"""What the routes of one API process work with."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_remote_provider.api.auth import Registry
from airflow_remote_provider.api.certificates import Certificates
from airflow_remote_provider.api.checks import Checks
from airflow_remote_provider.api.dispatcher import Dispatcher
from airflow_remote_provider.api.duties import Duties
from airflow_remote_provider.api.gateway import Gateway
from airflow_remote_provider.api.guesses import Guesses
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.rights import Rights
from airflow_remote_provider.api.shares import Shares
from airflow_remote_provider.api.task_logs import TaskLogs
from airflow_remote_provider.api.usage import Pace
from airflow_remote_provider.logstores.own import OwnLogStore
from airflow_remote_provider.settings import Settings


@dataclass(frozen=True)
class Central:
    settings: Settings
    pool: LedgerPool
    registry: Registry
    dispatcher: Dispatcher
    duties: Duties
    gateway: Gateway
    checks: Checks
    rights: Rights
    task_logs: TaskLogs
    own_logs: OwnLogStore
    guesses: Guesses
    certificates: Certificates
    shares: Shares
    own_log_shares: Shares
    usage_shares: Shares
    trigger_log_shares: Shares
    usage_pace: Pace
