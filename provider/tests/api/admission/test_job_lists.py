"""Lists of jobs are free up to the number of the worker's leases; longer ones are charged as several calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from airflow_remote_provider.api.admission.job_lists import BYTES_PER_JOB, FREE_JOBS, JobLists
from airflow_remote_provider.api.admission.rate_limits import RateLimits
from airflow_remote_provider.api.problems import Refusal


def _run(check: Callable[[JobLists], None], per_s: float = 200) -> None:
    async def run() -> None:
        check(JobLists(RateLimits(per_s)))

    asyncio.run(run())


def test_lists_up_to_the_number_of_leases_are_always_free() -> None:
    def check(lists: JobLists) -> None:
        lists.note("w", 10_000)
        for _ in range(1000):
            lists.take("w", 10_000 * BYTES_PER_JOB)
            lists.take("v", FREE_JOBS * BYTES_PER_JOB)

    _run(check)


def test_an_unknown_worker_may_list_ten_thousand_jobs_once() -> None:
    def check(lists: JobLists) -> None:
        lists.take("w", 750_000)
        with pytest.raises(Refusal, match="long lists"):
            lists.take("w", 750_000)
        lists.take("v", 750_000)

    _run(check)


def test_ended_leases_are_no_longer_free() -> None:
    def check(lists: JobLists) -> None:
        lists.note("w", 10_000)
        lists.note("w", 0)
        lists.take("w", 750_000)
        with pytest.raises(Refusal):
            lists.take("w", 750_000)
        assert not lists._leased

    _run(check)
