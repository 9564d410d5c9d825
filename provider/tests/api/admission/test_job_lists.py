"""Lists of jobs: free as far as central has leased jobs to the worker, else as dear as many calls."""

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


def test_as_many_as_are_leased_are_free_however_often() -> None:
    def check(lists: JobLists) -> None:
        lists.note("w", 10_000)
        for _ in range(1000):
            lists.take("w", 10_000 * BYTES_PER_JOB)
            lists.take("v", FREE_JOBS * BYTES_PER_JOB)

    _run(check)


def test_a_worker_that_this_process_does_not_know_yet_may_list_ten_thousand_once() -> None:
    def check(lists: JobLists) -> None:
        lists.take("w", 750_000)
        with pytest.raises(Refusal, match="longer ones"):
            lists.take("w", 750_000)
        lists.take("v", 750_000)

    _run(check)


def test_leases_that_ended_are_no_longer_free() -> None:
    def check(lists: JobLists) -> None:
        lists.note("w", 10_000)
        lists.note("w", 0)
        lists.take("w", 750_000)
        with pytest.raises(Refusal):
            lists.take("w", 750_000)
        assert not lists._leased

    _run(check)
