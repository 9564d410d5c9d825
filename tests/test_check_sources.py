"""Names that may be used in some files only: private ones of Airflow, and those that only POSIX systems have."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Check = Callable[[str, str], Iterator[str]]
SCRIPT = Path(__file__).parent.parent / "scripts/check_sources.py"


@pytest.fixture(scope="module")
def check() -> Check:
    spec = importlib.util.spec_from_file_location("check_sources", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Check = module.check
    return found


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from airflow.sdk._shared.secrets_masker import redact", "airflow.sdk._shared.secrets_masker.redact"),
        ("from airflow.models.trigger import _encrypt", "airflow.models.trigger._encrypt"),
        ("import airflow._vendor", "airflow._vendor"),
        ("def f():\n    from airflow.sdk.api.datamodels._generated import TaskInstance", "_generated.TaskInstance"),
    ],
)
def test_private_names_of_airflow_are_found_outside_compat(check: Check, source: str, name: str) -> None:
    assert [name in line for line in check("provider/src/airflow_remote_provider/plugin.py", source)] == [True]
    assert list(check("provider/src/airflow_remote_provider/compat/auth.py", source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from pwd import getpwnam",
        "import os\nos.fork()",
        "from os import killpg",
        "import socket\nx = socket.AF_UNIX",
    ],
)
def test_posix_names_are_found_in_the_daemon(check: Check, source: str) -> None:
    assert len(list(check("worker/src/airflow_remote_worker/daemon.py", source))) == 1
    assert list(check("worker/src/airflow_remote_worker/system/posix.py", source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "from airflow.sdk import dag",
        "from airflow.version import __version__",
        "import os\nos.kill(1, 0)",
        "import signal\nsignal.SIGTERM",
    ],
)
def test_everything_else_is_allowed(check: Check, source: str) -> None:
    assert list(check("worker/src/airflow_remote_worker/daemon.py", source)) == []
