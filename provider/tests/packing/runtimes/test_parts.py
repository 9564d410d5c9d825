"""What of central's own files and variables may be part of a runtime."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.parts import add_parts, check_variables
from airflow_remote_provider.packing.scan import Limits

LIMITS = Limits(files=10, bytes=1000, file_bytes=100)


@pytest.mark.parametrize(
    "name",
    [
        "AIRFLOW_CONN_DB",
        "AIRFLOW_VAR_X",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD",
        "MY_API_KEY",
        "DB_PASSWORD",
    ],
)
def test_secrets_are_refused(name: str) -> None:
    with pytest.raises(CannotBuild, match=f"^{name} looks like a secret"):
        check_variables({name: "x"})


def test_other_variables_are_accepted() -> None:
    check_variables({"TZ": "UTC", "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc", "no_proxy": "localhost"})


@pytest.mark.parametrize("env", [{"A B": "1"}, {"A": "\0"}, {"A": "x" * 5000}, {f"A{n}": "" for n in range(201)}])
def test_what_no_environment_can_have_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(CannotBuild):
        check_variables(env)


def test_a_link_out_of_the_plugins_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/out.py").symlink_to("/etc/hostname")
    monkeypatch.setattr(compat, "plugins_folder", lambda: tmp_path / "plugins")
    monkeypatch.setattr(compat, "local_settings_place", lambda: None)
    with pytest.raises(CannotBuild, match=r"^the plugins folder .* can't be part of the runtime: the link out.py leads out"):
        add_parts(tmp_path / "tree", LIMITS)


def test_local_settings_that_a_package_brings_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "plugins_folder", lambda: tmp_path / "none")
    monkeypatch.setattr(compat, "local_settings_place", lambda: Path(sysconfig.get_path("purelib"), "airflow_local_settings.py"))
    add_parts(tmp_path, LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_a_package_of_local_settings_is_copied_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "home/airflow_local_settings"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(compat, "plugins_folder", lambda: tmp_path / "none")
    monkeypatch.setattr(compat, "local_settings_place", lambda: package)
    add_parts(tmp_path / "tree", LIMITS)
    assert (tmp_path / "tree/config/airflow_local_settings/__init__.py").is_file()
