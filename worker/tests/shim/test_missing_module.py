from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from airflow_remote_worker.local.job_files import JobSpec
from airflow_remote_worker.shim.missing_module import explain_missing_module


def job(bundle: Path, runtime: str = "") -> JobSpec:
    return JobSpec(
        job_id="j.1",
        key="k",
        socket_path="",
        worker_name="w",
        queue="q",
        workload=msgspec.Raw(b"{}"),
        bundle_path=str(bundle),
        runtime_name=runtime,
    )


def write_log(directory: Path, *modules: str) -> Path:
    log = directory / "task.log"
    errors = [{"exc_type": "ModuleNotFoundError", "exc_value": f"No module named {module!r}"} for module in modules]
    lines = [json.dumps({"event": "Task failed", "error_detail": [error]}) for error in errors]
    log.write_text("\n".join(["x" * 300_000, *lines, '{"event": "the end"}\n']))
    return log


def test_a_runtime_of_central_names_the_command(tmp_path: Path) -> None:
    text = explain_missing_module(job(tmp_path, "etl"), write_log(tmp_path, "json", "no_such_package.deep"))
    assert "The runtime 'etl' has no module 'no_such_package.deep'" in text
    assert "airflow remote runtimes build etl --requirements FILE" in text


def test_a_runtime_of_the_site_is_named_by_its_path(tmp_path: Path) -> None:
    import sys

    assert f"this worker, {sys.executable}, has no module 'no_such_package'" in explain_missing_module(
        job(tmp_path), write_log(tmp_path, "no_such_package")
    )


@pytest.mark.parametrize("module", ["json.no_such_part", "helpers.no_such_part"])
def test_a_part_of_a_package_that_is_there_is_no_fault_of_the_runtime(tmp_path: Path, module: str) -> None:
    (tmp_path / "helpers").mkdir()
    assert explain_missing_module(job(tmp_path, "etl"), write_log(tmp_path, module)) == ""


def test_other_logs_say_nothing(tmp_path: Path) -> None:
    assert explain_missing_module(job(tmp_path), write_log(tmp_path)) == ""
    assert explain_missing_module(job(tmp_path), tmp_path / "missing.log") == ""
