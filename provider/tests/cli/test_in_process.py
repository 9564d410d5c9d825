"""Commands without a server: central's REST API in this process, as the user of the operating system."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from sqlalchemy import Engine, text

from testkit.ledger import Base, audit_entries, enlist  # isort: skip

from airflow_remote_provider.api.ui_v1 import workers as routes_of_workers
from airflow_remote_provider.cli import in_process
from airflow_remote_provider.cli.rest import CentralClient
from airflow_remote_provider.cli.words import CentralUnavailable
from airflow_remote_provider.ledger.views.workers import WorkerFilter
from airflow_remote_provider.stores.worker_logs import WorkerLogStore

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def central() -> CentralClient:
    return CentralClient(in_process.connect())


def test_without_our_tables_a_command_names_the_remedy(central: CentralClient, database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("DROP TABLE remote_enrolment"))
    try:
        with pytest.raises(CentralUnavailable, match="airflow db migrate") as ended:
            central.list_tokens()
    finally:
        Base.metadata.create_all(database)
    assert "\n" not in str(ended.value) and "SELECT" not in str(ended.value)


def test_a_file_that_cannot_be_read_is_named(central: CentralClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: WorkerLogStore, *args: object) -> None:
        raise PermissionError(13, "Permission denied", "/logs/edge")

    monkeypatch.setattr(WorkerLogStore, "read", read)
    enlist("edge")
    with pytest.raises(CentralUnavailable, match=r"a file can't be used: .*'/logs/edge'"):
        central.read_log("edge", most=10, after=None, contains="", level="debug")


@pytest.mark.parametrize("error", [RuntimeError("a mistake of ours"), KeyboardInterrupt()])
def test_any_other_exception_is_raised_as_it_is(
    central: CentralClient, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(routes_of_workers.view, "show_worker", fail)
    with pytest.raises(type(error)) as raised:
        central.show_worker("edge")
    assert raised.value is error


def test_the_audit_names_the_user_of_the_operating_system_whatever_a_request_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    enlist("edge")
    client = in_process.connect()
    client._http.headers["authorization"] = "Bearer vic"
    client._http.cookies.set("_token", "vic")
    CentralClient(client).rotate("edge")
    [entry] = audit_entries("action", worker="edge")
    assert entry.actor == "ann"


def test_a_user_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")  # a container with a user that no file names

    monkeypatch.setattr("getpass.getuser", getuser)
    enlist("edge")
    CentralClient(in_process.connect()).rotate("edge")
    assert [entry.actor for entry in audit_entries("action", worker="edge")] == ["unknown"]


def test_no_thread_outlives_a_call(central: CentralClient) -> None:
    before = set(threading.enumerate())
    assert central.list_workers(WorkerFilter()) == []
    started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in started)


def test_airflow_s_own_api_is_not_loaded() -> None:
    """It takes 0.3 s, and prints a warning of starlette's."""
    code = (
        "import sys; from airflow_remote_provider.cli.in_process import connect; connect(); "
        "print([name for name in sys.modules if name.startswith('airflow.api_fastapi')])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
