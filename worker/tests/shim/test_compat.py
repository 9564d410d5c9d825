"""Differences between the versions of Airflow in a runtime."""

from __future__ import annotations

import pytest
from airflow_remote_worker.shim import compat


@pytest.mark.parametrize(
    ("task_sdk", "library"),
    [
        ("1.3.2", "httpx"),
        ("1.3.10", "httpx"),
        ("1.4.0b2", "httpx2"),
        ("1.4.0", "httpx2"),
        ("1.10.1", "httpx2"),
        ("2.0", "httpx2"),
    ],
)
def test_the_version_of_the_task_sdk_decides_on_the_http_library(task_sdk: str, library: str) -> None:
    assert compat.http_library_of(task_sdk) == library


def test_plain_callback_arguments_need_no_option_of_the_task_sdk() -> None:
    assert compat.encoding_of_callback(None) == {}
