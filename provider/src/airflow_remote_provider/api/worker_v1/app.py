"""Creates the worker API, with one pool, registry, dispatcher and gateway per process for the app's lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.version import PROBLEM_HEADER
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from airflow_remote_provider import compat
from airflow_remote_provider.api.admission.downloads import Downloads
from airflow_remote_provider.api.admission.failed_enrolments import FailedEnrolments
from airflow_remote_provider.api.admission.holdings import Holdings
from airflow_remote_provider.api.admission.job_lists import JobLists
from airflow_remote_provider.api.admission.rate_limits import (
    INVENTORY_CALLS_PER_S,
    TRIGGER_LOG_CALLS_PER_S,
    UNKNOWN_CALLS_PER_S,
    WORKER_LOG_CALLS_PER_S,
    RateLimits,
)
from airflow_remote_provider.api.admission.usage_interval import WORKER_CALLS_PER_S, UsageInterval
from airflow_remote_provider.api.dispatch.dispatcher import Dispatcher
from airflow_remote_provider.api.duties.collector import Collector
from airflow_remote_provider.api.duties.following import Following
from airflow_remote_provider.api.duties.loop import Duties
from airflow_remote_provider.api.duties.publishing import Publishing
from airflow_remote_provider.api.gateway.gateway import Gateway
from airflow_remote_provider.api.gateway.lease_cache import LeaseCache
from airflow_remote_provider.api.gateway.rights import Rights
from airflow_remote_provider.api.gateway.writes import Writes
from airflow_remote_provider.api.planned_runtimes import PlannedRuntimes
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Marked
from airflow_remote_provider.api.registry import Registry
from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.api.shutdown import on_shutdown_signal
from airflow_remote_provider.api.unavailable import run_or_explain
from airflow_remote_provider.api.worker_v1.certificates import Certificates
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.api.worker_v1.packs import Packs
from airflow_remote_provider.api.worker_v1.routes import routes
from airflow_remote_provider.api.worker_v1.task_logs import TaskLogs
from airflow_remote_provider.ledger.written import Bounds
from airflow_remote_provider.settings import settings
from airflow_remote_provider.stores.blobs.opened import BlobStores
from airflow_remote_provider.stores.task_logs import FileLogStore
from airflow_remote_provider.stores.worker_logs import WorkerLogStore

START_AGAIN_AFTER_S = 5.0
"""Delay before a background loop that failed is started again."""


def create_worker_api(execution_api: Callable[[], Any] = compat.execution_api_app) -> FastAPI:
    """Return the app that the plugin mounts under `/remote/v1`. Nothing runs before its lifespan is entered.

    *execution_api* makes the application that the gateway calls.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        busy = {PROBLEM_HEADER: ProblemCode.BUSY.value}
        async with run_or_explain(app, "Remote Worker API", _running(app, execution_api), headers=busy):
            yield

    app = FastAPI(title="Remote Worker API", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Marked)
    return app


@asynccontextmanager
async def _running(app: FastAPI, execution_api: Callable[[], Any]) -> AsyncIterator[None]:
    options = settings()
    pool = LedgerPool(options.ledger_threads)
    registry = Registry(pool, suspend_on_replay=options.suspend_on_replay)
    duties = Duties(pool, options)
    lease_cache = LeaseCache(pool)
    publishing = Publishing(options)
    runtimes = PlannedRuntimes(pool)
    dispatcher = Dispatcher(
        pool,
        registry,
        runtimes,
        options,
        on_work=duties.mark_busy,
        on_stop=lease_cache.forget_all,
        on_publish=publishing.note_request,
    )
    gateway = Gateway(options.gateway_concurrency, execution_api)
    failed_enrolments = FailedEnrolments(options.enrol_failures_per_minute)
    packs = Packs(pool, BlobStores(options.blob_store))
    rate_limits = RateLimits(options.calls_per_second)
    central = ApiContext(
        options,
        pool,
        registry,
        runtimes,
        dispatcher,
        duties,
        gateway,
        lease_cache,
        Rights(pool),
        TaskLogs(pool, FileLogStore(options.log_bytes_per_job)),
        WorkerLogStore(options.worker_log_bytes),
        failed_enrolments,
        Certificates(options.client_certificate_header, pool),
        rate_limits,
        RateLimits(WORKER_LOG_CALLS_PER_S),
        RateLimits(WORKER_CALLS_PER_S),
        RateLimits(TRIGGER_LOG_CALLS_PER_S),
        UsageInterval(),
        Writes(pool, Bounds(options.written_bytes_per_job, options.writes_per_job)),
        RateLimits(UNKNOWN_CALLS_PER_S, whose="this address"),
        JobLists(rate_limits),
        packs,
        Downloads(options.pack_concurrency),
        RateLimits(INVENTORY_CALLS_PER_S),
        holdings=Holdings(options.gateway_body_bytes),
    )
    app.router.routes[:] = routes(central)
    try:
        await registry.refresh()  # in one statement, else the first call of each worker would query its row
    except (SQLAlchemyError, OSError) as error:  # each worker is then looked up at its first call
        faults.report_single_failure("read the workers", error)
    async with gateway.serving():
        sides = {
            asyncio.create_task(_keep_running(name, loop), name=f"remote-{name}")
            for name, loop in {
                "dispatch": dispatcher.run,
                "listen": dispatcher.listen,
                "duties": duties.run,
                "alerts": duties.alerts.deliver,
                "publish": publishing.run,
                "runtimes": Following(options).run,
                "collect": Collector(pool, options).run,
            }.items()
        }
        restore = on_shutdown_signal(dispatcher.room.close)
        try:
            yield
        finally:
            restore()
            dispatcher.room.close()
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            packs.close()
            pool.close()


async def _keep_running(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a background loop; if it fails with an unexpected exception, report that and start it again.

    The failure must not end Airflow's API server, which without the loop would only seem to serve workers.
    """
    while True:
        try:
            return await loop()
        except Exception as error:
            faults.report_single_failure(f"keep its loop {name!r} running", error)
        await asyncio.sleep(START_AGAIN_AFTER_S)
