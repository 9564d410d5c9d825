"""What counts as a change of a runtime. How it is tried, with its zygote and its canary: worker/tests/test_daemon.py."""

from __future__ import annotations

import os
from pathlib import Path

from airflow_remote_worker.jobs.runtime import looks_of


def test_a_package_that_comes_or_goes_changes_the_looks(tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"
    (packages / "a").mkdir(parents=True)
    before = looks_of([str(packages)])
    (packages / "b.dist-info").mkdir()
    os.utime(packages, ns=(1, 1))
    assert looks_of([str(packages)]) != before


def test_a_plugin_that_is_edited_changes_them_and_its_bytecode_does_not(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    (plugins / "deep" / "__pycache__").mkdir(parents=True)
    plugin = plugins / "deep" / "backend.py"
    plugin.write_text("a = 1")
    before = looks_of([str(plugins)])
    (plugins / "deep" / "__pycache__" / "backend.pyc").write_bytes(b"x")
    assert looks_of([str(plugins)]) == before
    plugin.write_text("a = 12")
    assert looks_of([str(plugins)]) != before


def test_what_is_not_there_looks_like_nothing(tmp_path: Path) -> None:
    assert looks_of([str(tmp_path / "airflow.cfg")]) == {}
