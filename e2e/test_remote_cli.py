"""Topic suite: `airflow remote …` on a computer without access to central's database uses the API, with the user's rights."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testkit.processes import clean_environment
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

AIRFLOW = Path(sys.executable).parent / "airflow"

Elsewhere = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def elsewhere(central: Airflow, tmp_path: Path) -> Elsewhere:
    """Return a function that runs `airflow remote …` as a user of central, with the user's token on stdin."""
    environment = clean_environment(
        {
            "AIRFLOW_HOME": str(tmp_path / "home"),
            # Nothing listens there.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:1/nothing",
            "AIRFLOW_REMOTE_SERVER": central.url,
        }
    )

    def run(user: str, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
        token = token or central.client(user).headers["authorization"].removeprefix("Bearer ")
        command = [AIRFLOW, "remote", *words, "--token-file", "-"]
        return subprocess.run(command, env=environment, input=token, capture_output=True, text=True, timeout=90)

    return run


def _facts(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_workers_are_listed_and_changed_without_the_database(central: Airflow, worker: Worker, elsewhere: Elsewhere) -> None:
    rows = {row["name"]: row["presence"] for row in _facts(elsewhere("viewer", "workers", "list", "-o", "json"))}
    assert rows[worker.name] == "online"

    done = elsewhere("op", "workers", "labels", worker.name, "site=kiel")
    assert (done.returncode, done.stdout) == (0, f"{worker.name}: site=kiel\n"), done.stderr
    assert central.remote_cli("workers", "show", worker.name)["labels"] == {"site": "kiel"}
    assert elsewhere("op", "workers", "labels", worker.name, "").returncode == 0

    entries = _facts(elsewhere("op", "audit", "list", "--worker", worker.name, "--kind", "action", "-o", "json"))
    assert {entry["actor"] for entry in entries[:2]} == {"op"}


def test_a_missing_right_ends_the_command_with_a_message(worker: Worker, elsewhere: Elsewhere) -> None:
    done = elsewhere("viewer", "workers", "pause", worker.name)
    assert done.returncode == 1 and "the user 'viewer' may not manage workers" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_url_that_is_not_central_is_reported(central: Airflow, elsewhere: Elsewhere) -> None:
    for url in (f"{central.url}/sub/path", f"{central.url}/api/v2"):
        done = elsewhere("viewer", "workers", "list", "--server", url)
        assert done.returncode == 1 and "by something that is not the Remote Executor's API" in done.stderr, done.stderr


def test_a_token_that_airflow_refuses_is_reported(elsewhere: Elsewhere) -> None:
    done = elsewhere("viewer", "workers", "list", token="e30.e30.e30")
    assert done.returncode == 1 and "refuses the token in the first line of stdin" in done.stderr, done.stderr
