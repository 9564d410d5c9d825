"""Topic suite: no secrets on the worker's disk or in its processes' environments and command lines while a task runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

GRANTED = {"the granted connection's password": "granted-3f9a-password", "the granted variable": "granted-77c1-text"}
WITHHELD = {"the withheld connection's password": "withheld-b2d8-password", "the withheld variable": "withheld-0e5c-text"}
TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")
"""The pattern of Airflow's tokens (JWT)."""


@pytest.fixture(scope="module", autouse=True)
def _secrets(central: Airflow) -> None:
    for prefix, secrets in (("known", GRANTED), ("unknown", WITHHELD)):
        password, text = secrets.values()
        central.api("POST", "connections", json={"connection_id": f"{prefix}_plant", "conn_type": "http", "password": password})
        central.api("POST", "variables", json={"key": f"{prefix}_password", "value": text})


def _centrals_secrets(central: Airflow) -> dict[str, str]:
    keys = {
        name: central.environment[name]
        for name in ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__CORE__FERNET_KEY")
    }
    password = urlsplit(central.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).password
    return {**keys, "the database's password": password or "", **{user.name: user.password for user in central.users.values()}}


def _places(worker: Worker) -> Iterator[tuple[str, bytes]]:
    """Yield the contents that another process or a thief of the worker's disk could read, with their place."""
    for file in sorted(worker.directory.rglob("*")):
        if file.is_file() and not file.is_symlink():
            yield str(file.relative_to(worker.directory)), file.read_bytes()
    for pid in {worker.pid, *worker.stray_pids()}:
        for what in ("environ", "cmdline"):
            try:
                yield f"{what} of process {pid}", Path(f"/proc/{pid}/{what}").read_bytes()
            except (ProcessLookupError, FileNotFoundError):
                continue


def _found(worker: Worker, secrets: dict[str, str]) -> list[str]:
    return [f"{name} in {place}" for place, content in _places(worker) for name, it in secrets.items() if it.encode() in content]


def test_a_running_task_has_no_secret_on_disk_or_in_environments_or_command_lines(
    central: Airflow, worker: Worker, tmp_path: Path
) -> None:
    run = central.trigger("need_to_know", {"directory": str(tmp_path)})
    wait_until((tmp_path / "holding").exists, timeout_s=60, what="the task holds its secrets")
    secrets = {**_centrals_secrets(central), **GRANTED, **WITHHELD}
    assert all(len(secret) >= 8 for secret in secrets.values()), "one of them is too short for the search"
    assert TOKEN.search(central.client().headers["authorization"].encode()), "Airflow's tokens have another format now"
    during = _found(worker, secrets)
    tokens = [place for place, content in _places(worker) if TOKEN.search(content)]
    places = [place for place, _ in _places(worker)]
    (tmp_path / "seen").touch()
    assert central.wait_for_run("need_to_know", run) == "success"
    assert central.xcom("need_to_know", run, "hold") == [*map(len, GRANTED.values()), 2], (
        "it had the granted secrets and no others"
    )
    assert during == []
    assert tokens == []
    assert _found(worker, secrets) == []
    # The search has covered the task's log, its supervisor and its own process.
    assert any(place.endswith("task.log") for place in places)
    assert sum(place.startswith("environ") for place in places) >= 3
    log = central.task_log("need_to_know", run, "hold")
    assert "the password is ***" in log
    assert "unknown_plant" in log and not any(secret in log for secret in secrets.values())


def test_only_the_owner_reads_the_credential(worker: Worker) -> None:
    (credential,) = worker.state.glob("credential.json")
    assert credential.stat().st_mode & 0o077 == 0
    assert worker.state.stat().st_mode & 0o077 == 0
    holding = {Path(place).name for place, content in _places(worker) if b"arwkr_" in content}
    assert holding == {"credential.json", "credential.json.copy"}, "in no other file"
