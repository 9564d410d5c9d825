"""A site's plugins folder with XCom and secrets backends, macros and listeners. Only the daemon is a stub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_remote_worker.local import frames, job_files

from .conftest import Job, StubDaemon, ZygoteUnderTest, wait_until

pytestmark = pytest.mark.runtime

MakeJob = Callable[..., Job]

XCOM_BACKEND = """
import json, uuid
from pathlib import Path
from airflow.sdk.bases.xcom import BaseXCom

STORE = Path({store!r})

class SiteXCom(BaseXCom):
    @staticmethod
    def serialize_value(value, **context):
        name = uuid.uuid4().hex
        (STORE / name).write_text(json.dumps(value))
        return BaseXCom.serialize_value(f"site://{{name}}")

    @staticmethod
    def deserialize_value(result):
        name = BaseXCom.deserialize_value(result).removeprefix("site://")
        return json.loads((STORE / name).read_text())
"""
SECRETS_BACKEND = """
from airflow.secrets import BaseSecretsBackend

class SiteSecrets(BaseSecretsBackend):
    def get_connection(self, conn_id, team_name=None):
        from airflow.sdk import Connection
        if conn_id == "press":
            return Connection(conn_id="press", conn_type="generic", host="press.site", password="only-at-the-site")
        return None

    def get_variable(self, key, team_name=None):
        return "12 bar" if key == "pressure" else None
"""
SITE_PLUGIN = """
import sys
from airflow.plugins_manager import AirflowPlugin
import site_listener

def shout(text):
    return text.upper() + "!"

class SitePlugin(AirflowPlugin):
    name = "site"
    macros = [shout]
    listeners = [site_listener]
"""
LISTENER = """
from pathlib import Path
from airflow.listeners import hookimpl

@hookimpl
def on_task_instance_running(previous_state, task_instance):
    with Path({started!r}).open("a") as file:
        print(task_instance.task_id, file=file)
"""
DAG = """
from airflow.sdk import BaseHook, DAG, Variable, task
from airflow.providers.standard.operators.bash import BashOperator
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        print("password", BaseHook.get_connection("press").password, "on", BaseHook.get_connection("press").host)
        print("pressure", Variable.get("pressure"))
        return {"valve": 7}
    BashOperator(task_id="macro", bash_command="echo {{ macros.site.shout('closed') }}")
    a_task()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    plugins = home / "plugins"
    plugins.mkdir(parents=True)
    (tmp_path / "store").mkdir()
    (plugins / "site_xcom.py").write_text(XCOM_BACKEND.format(store=str(tmp_path / "store")))
    (plugins / "site_secrets.py").write_text(SECRETS_BACKEND)
    (plugins / "site_listener.py").write_text(LISTENER.format(started=str(tmp_path / "started")))
    (plugins / "site_plugin.py").write_text(SITE_PLUGIN)
    return tmp_path


@pytest.fixture
def site_zygote(site: Path, runtime: str, runtime_environment: dict[str, str]) -> Iterator[ZygoteUnderTest]:
    settings = {
        "AIRFLOW_HOME": str(site / "home"),
        "AIRFLOW__CORE__XCOM_BACKEND": "site_xcom.SiteXCom",
        "AIRFLOW__SECRETS__BACKEND": "site_secrets.SiteSecrets",
    }
    one = ZygoteUnderTest(runtime, {**runtime_environment, **settings})
    assert isinstance(one.first, frames.Ready), one.first
    yield one
    one.leave()


def test_backends_macros_and_listeners_of_the_plugins_folder_work_in_a_task(
    site_zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon, site: Path
) -> None:
    job, macro = make_job(DAG), make_job(DAG, task_id="macro")
    for one in (job, macro):
        site_zygote.spawn(one)
        assert one.result().final_state == "success", one.events()
    said = job.events()
    assert "on press.site" in said
    assert "pressure 12 bar" in said
    assert "only-at-the-site" not in (job.directory / "task.log").read_text()
    assert "CLOSED!" in macro.events()
    assert (site / "started").read_text().split() == ["a_task", "macro"]
    # Central was not asked for a secret, and received a reference instead of the value.
    assert not [call.path for call in daemon.calls if call.path.startswith(("connections", "variables"))]
    (written,) = [
        call.body for call in daemon.calls if call.path.startswith("xcoms/a_dag/a_run/a_task/") and b"site://" in call.body
    ]
    assert b"valve" not in written
    assert '{"valve": 7}' in [file.read_text() for file in (site / "store").iterdir()]


def test_the_canary_does_not_use_the_site_s_backends_and_listeners(site_zygote: ZygoteUnderTest, site: Path) -> None:
    directory = site / "canary"
    directory.mkdir()
    (directory / job_files.CANARY_SPEC).write_bytes(b"{}")
    canary = Job(directory)
    site_zygote.spawn(canary)
    assert '"trouble":""' in _text(canary)
    assert str(site / "home/plugins") in _text(canary)
    assert not (site / "started").exists()
    assert not list((site / "store").iterdir())


def _text(job: Job) -> str:
    wait_until((job.directory / "result.json").exists)
    return (job.directory / "result.json").read_text()
