from __future__ import annotations

import pytest
from airflow_remote_provider.agreement import SUPPORTED_TASK_SDKS, explain_mismatch


@pytest.mark.parametrize(
    ("central", "task_sdk"),
    [
        ("3.3.2", "1.3.2"),
        ("3.3.0", "1.3.9"),
        ("3.4.0b2", "1.4.0b2"),
        ("3.4.0", "1.3.2"),
        ("3.3.2", "1.4.0b2"),
        ("3.9.1", "1.9.0"),
    ],
)
def test_a_tested_pair_of_versions_is_accepted(central: str, task_sdk: str) -> None:
    assert explain_mismatch(central, task_sdk=task_sdk) == ""


@pytest.mark.parametrize("task_sdk", ["1.2.0", "1.5.0", "0.9", "2.3.2", "nonsense"])
def test_another_minor_version_is_named_with_the_remedy(task_sdk: str) -> None:
    text = explain_mismatch("3.3.2", task_sdk=task_sdk, airflow="3.2.1")
    assert f"the Task SDK {task_sdk} (Airflow 3.2.1)" in text
    assert "this central is Airflow 3.3.2" in text
    assert "need the Task SDK 1.3 or 1.4" in text


def test_a_version_that_was_not_reported_is_accepted() -> None:
    assert explain_mismatch("3.3.2", task_sdk="") == ""


def test_each_central_serves_the_task_sdk_that_comes_with_it() -> None:
    assert all((major - 2, minor) in served for (major, minor), served in SUPPORTED_TASK_SDKS.items())
