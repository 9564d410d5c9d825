"""What users may require, and which of central's versions hold."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from airflow_remote_protocol.platforms import Platform
from airflow_remote_provider.packing.runtimes import requirements
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.requirements import Installed, check, constraints

LINUX, WINDOWS = Platform.parse("cp310-linux-gnu-x86_64"), Platform.parse("cp311-windows-x86_64")


def test_requirements_are_stored_without_comments() -> None:
    text = "# ours\n\npandas >= 2  # for reports\napache-airflow-providers-amazon[s3fs]\nuvloop; sys_platform == 'linux'\n"
    assert check(text).splitlines() == [
        "pandas>=2",
        "apache-airflow-providers-amazon[s3fs]",
        'uvloop; sys_platform == "linux"',
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pandas\n-r other.txt", "line 2 of the requirements has options; write one name with versions"),
        ("--index-url https://ann:secret@index/", "line 1 of the requirements has options"),
        ("pandas==2 --hash=sha256:00", "line 1 of the requirements has options"),
        ("a b", "line 1 of the requirements is not a requirement: 'a b'"),
        (
            "thing @ https://ann:secret@index/thing.whl",
            "line 1 of the requirements names thing by an address, which is not stored",
        ),
        ("Apache_Airflow_Core==3", "line 1 of the requirements names Apache_Airflow_Core, which always has central's version"),
        ("x" * (1 << 19), "the file of requirements has 524288 characters"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(text: str, said: str) -> None:
    with pytest.raises(CannotBuild) as refused:
        check(text)
    assert str(refused.value).startswith(said)
    assert "secret" not in str(refused.value)


def test_versions_are_centrals_where_central_has_the_package() -> None:
    here = [
        Installed("numpy", "2.3.0", ">=3.11"),
        Installed("torch", "2.5+cpu"),
        Installed("click", "8.1"),
        Installed("apache-airflow-core", "3"),
    ]
    assert constraints(here, [], WINDOWS) == (["numpy==2.3.0", "torch==2.5", "click==8.1"], [])
    assert constraints(here, [], LINUX) == (["torch==2.5", "click==8.1"], [here[0]])  # numpy 2.3.0 does not support Python 3.10


def test_a_users_requirement_counts_more_where_it_applies() -> None:
    here = [Installed("click", "8.1")]
    assert constraints(here, ["click>=9; sys_platform == 'win32'"], WINDOWS) == ([], here)
    assert constraints(here, ["click>=9; sys_platform == 'win32'"], LINUX) == (["click==8.1"], [])
    assert constraints(here, ["click>=8"], LINUX) == (["click==8.1"], [])


def test_every_runtime_has_exactly_centrals_airflow() -> None:
    assert requirements.base()[:2] == [f"{name}=={version(name)}" for name in ("apache-airflow-core", "apache-airflow-task-sdk")]
    assert "apache-airflow-providers-standard" in requirements.base()
    assert "fastapi" in requirements.excluded()


def test_what_is_installed_here_is_found_with_its_versions() -> None:
    found = {package.name: package for package in requirements.installed()}
    assert found["apache-airflow-core"].version == version("apache-airflow-core")
    assert found["apache-airflow-core"].supports("3.11")
    assert not found["apache-airflow-core"].supports("3.9")
