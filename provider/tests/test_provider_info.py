"""Airflow discovers the provider by itself: executor, migrations, commands, configuration, plugin."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from airflow_remote_provider.provider_info import get_provider_info
from airflow_remote_provider.settings import OPTIONS, SWITCHES, TEXT_OPTIONS

LOOK = """
import json
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager
from airflow.utils.db_manager import RunDBManager

found = ProvidersManager()
found.initialize_providers_configuration()
managers = RunDBManager()
managers.validate()
print(json.dumps({
    "executors": found.executor_class_names,
    "db_managers": list(found.db_managers),
    "commands": [command.name for function in found.cli_command_functions for command in function()],
    "config": [sorted(sections["remote"]["options"]) for _, sections in found.provider_configs if "remote" in sections],
    "poll_seconds": conf.getfloat("remote", "poll_seconds"),
    "tables": sorted(managers.get_required_table_names()),
}))
"""


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    """The result of Airflow's own ProvidersManager in a fresh interpreter."""
    answer: dict[str, object] = json.loads(_python(LOOK))
    return answer


def test_airflow_finds_the_executor(found: dict[str, list[str]]) -> None:
    assert "airflow_remote_provider.executor.RemoteExecutor" in found["executors"]


def test_airflow_finds_the_migrations(found: dict[str, list[str]]) -> None:
    assert "airflow_remote_provider.db.RemoteDBManager" in found["db_managers"]
    assert {"remote_job", "remote_worker", "alembic_version_remote"} <= set(found["tables"])


def test_airflow_finds_the_commands(found: dict[str, list[str]]) -> None:
    assert "remote" in found["commands"]


def test_airflow_finds_the_configuration_with_its_defaults(found: dict[str, object]) -> None:
    assert found["config"] == [sorted({**OPTIONS, **SWITCHES, **TEXT_OPTIONS})]
    assert found["poll_seconds"] == OPTIONS["poll_seconds"].default


def test_every_default_is_unchanged_in_airflows_configuration() -> None:
    options = get_provider_info()["config"]["remote"]["options"]
    assert {name: float(options[name]["default"]) for name in OPTIONS} == {
        name: option.default for name, option in OPTIONS.items()
    }
    assert {name: options[name]["default"] for name in TEXT_OPTIONS} == {name: opt.default for name, opt in TEXT_OPTIONS.items()}


def test_the_scheduler_does_not_import_the_api() -> None:
    code = (
        "import sys; before = set(sys.modules);"
        "import airflow_remote_provider.executor, airflow_remote_provider.plugin, airflow_remote_provider.cli;"
        "new = set(sys.modules) - before;"
        "print(sorted(name for name in new if name.startswith(('airflow_remote_provider.api', 'uvicorn'))))"
    )
    assert _python(code) == "[]"


def test_the_plugin_is_found_and_mounts_the_worker_api() -> None:
    code = (
        "from airflow import plugins_manager;"
        "apps = plugins_manager.get_fastapi_plugins()[0];"
        "print([app['url_prefix'] for app in apps if app['name'] == 'Remote Worker API'])"
    )
    assert _python(code) == "['/remote/v1']"


def test_the_commands_are_created_without_the_ledger_and_the_database() -> None:
    """Airflow builds the whole command tree for each `airflow …`."""
    code = (
        "import sys; from airflow_remote_provider.cli import get_remote_cli_commands; get_remote_cli_commands();"
        "heavy = ('models', 'ledger.views', 'ledger.leases', 'compat', 'api', 'executor');"
        "print([name for name in sys.modules if name.startswith(tuple('airflow_remote_provider.' + part for part in heavy))])"
    )
    assert _python(code) == "[]"
