"""What is left of the installed packages: nothing of tests and the dashboard, and only names that every system can have."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow_remote_protocol.platforms import Platform
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.trim import check_names, trim
from airflow_remote_provider.packing.scan import Limits

LINUX, WINDOWS = Platform.parse("cp311-linux-gnu-x86_64"), Platform.parse("cp311-windows-x86_64")
LIMITS = Limits(files=10, bytes=1000, file_bytes=100)


def make(site: Path, *paths: str, text: str = "x") -> None:
    for path in paths:
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)


def left(site: Path) -> set[str]:
    return {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}


def test_tests_go_and_other_files_of_that_name_stay(tmp_path: Path) -> None:
    make(tmp_path, "a/tests/test_a.py", "a/tests/data/x.csv", "a/b/tests/sub/conftest.py", "a/testing/__init__.py")
    make(tmp_path, "dbt/tests/generic/builtin.sql", "jinja2/tests.py", "a/__pycache__/x.cpython-311.pyc", "a/old.pyc")
    trim(tmp_path, LINUX, LINUX)
    assert left(tmp_path) == {"a/testing/__init__.py", "dbt/tests/generic/builtin.sql", "jinja2/tests.py"}


def test_example_dags_of_airflow_go_and_those_of_others_stay(tmp_path: Path) -> None:
    make(tmp_path, "airflow/example_dags/a.py", "airflow/example_dags/sub/b.py", "airflow/example_dags/__init__.py")
    make(tmp_path, "airflow/providers/x/example_dags/a.py", "other/example_dags/a.py")
    trim(tmp_path, LINUX, LINUX)
    assert left(tmp_path) == {"airflow/example_dags/__init__.py", "other/example_dags/a.py"}


def test_a_file_that_uv_linked_to_its_cache_is_not_written_to(tmp_path: Path) -> None:
    make(tmp_path / "site", "a-1.dist-info/RECORD", text="b.py,sha256=x,1\na-1.dist-info/RECORD,,\nbin/a,,\n")
    make(tmp_path / "site", "b.py")
    cached = tmp_path / "cached"
    cached.hardlink_to(tmp_path / "site/a-1.dist-info/RECORD")
    trim(tmp_path / "site", LINUX, LINUX)
    assert (tmp_path / "site/a-1.dist-info/RECORD").read_text() == "a-1.dist-info/RECORD,,\nb.py,,\n"
    assert cached.read_text().startswith("b.py,sha256=x,1\n")


def test_a_package_that_was_built_here_must_suit_the_platform(tmp_path: Path) -> None:
    make(tmp_path, "native-1.0.dist-info/uv_build.json")
    make(tmp_path, "native-1.0.dist-info/WHEEL", text="Tag: cp311-cp311-linux_x86_64\n")
    with pytest.raises(
        CannotBuild, match=r"^native==1.0 has no wheel for cp311-windows-x86_64, and what central builds of it is for"
    ):
        trim(tmp_path, WINDOWS, LINUX)
    trim(tmp_path, LINUX, LINUX)
    assert left(tmp_path) == {"native-1.0.dist-info/WHEEL"}


@pytest.mark.parametrize("path", ["a/aux.py", "a/b:c.py", "a/dot./x.py", "a/" + "x" * 240])
def test_a_name_that_no_tree_can_have_is_named_with_its_package(tmp_path: Path, path: str) -> None:
    make(tmp_path, path)
    make(tmp_path, "a-2.dist-info/RECORD", text=f"{path},,\n")
    with pytest.raises(CannotBuild, match=r"^the package a==2 can't travel: .* Require a version without that file"):
        check_names(tmp_path, LIMITS)


def test_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "a/Readme", "a/README")
    with pytest.raises(CannotBuild, match="the files a/README and a/Readme have the same name on Windows and macOS"):
        check_names(tmp_path, LIMITS)


def test_a_license_with_such_a_name_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "a-1.dist-info/licenses/con.txt")
    check_names(tmp_path, LIMITS)
    assert left(tmp_path) == {"a.py"}


def test_files_beyond_the_limits_are_refused_with_the_setting(tmp_path: Path) -> None:
    make(tmp_path, "big.so", text="x" * 101)
    with pytest.raises(CannotBuild, match=r"has the file big.so of 101 bytes; raise \[remote\] blob_bytes, which allows 100"):
        check_names(tmp_path, LIMITS)
    (tmp_path / "big.so").unlink()
    make(tmp_path, *(f"{number}.so" for number in range(11)), text="x" * 100)
    with pytest.raises(
        CannotBuild, match=r"the packages have 11 files and 1100 bytes; 100000 files and 1000 bytes \(\[remote\] tree_bytes\)"
    ):
        check_names(tmp_path, LIMITS)
