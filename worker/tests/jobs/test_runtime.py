"""What counts as a change of a runtime. How it is tried, with its zygote and its canary: worker/tests/test_daemon.py."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from airflow_remote_worker.jobs import runtime as runtime_module
from airflow_remote_worker.jobs.runtime import RuntimeKeeper, looks_of

from ..conftest import HandClock


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


def test_a_drive_that_hangs_costs_one_thread_and_never_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = threading.Event()
    looks: list[object] = []

    def hang(places: object) -> dict[str, tuple[int, int]]:
        looks.append(places)
        away.wait(20)
        return {}

    monkeypatch.setattr(runtime_module, "looks_of", hang)
    monkeypatch.setattr(runtime_module, "LOOK_WITHIN_S", 0.05)
    launcher = SimpleNamespace(python=tmp_path / "bin/python")
    keeper = RuntimeKeeper(launcher, tmp_path / "canary", HandClock())  # type: ignore[arg-type]

    async def look_twice() -> None:
        assert await keeper._look() is None
        assert await keeper._look() is None
        assert len(looks) == 1
        away.set()
        with anyio.fail_after(10):
            while await keeper._look() is None:
                await anyio.sleep(0.01)

    anyio.run(look_twice)
