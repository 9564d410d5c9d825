"""Detecting changes of a runtime. worker/tests/test_daemon.py tests its zygote and its canary."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from airflow_remote_worker.jobs import runtime as runtime_module
from airflow_remote_worker.jobs.runtime import RuntimeKeeper, take_snapshot

from ..conftest import HandClock


def test_an_added_or_removed_package_changes_the_snapshot(tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"
    (packages / "a").mkdir(parents=True)
    before = take_snapshot([str(packages)])
    (packages / "b.dist-info").mkdir()
    os.utime(packages, ns=(1, 1))
    assert take_snapshot([str(packages)]) != before


def test_an_edited_plugin_changes_the_snapshot_and_its_bytecode_does_not(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    (plugins / "deep" / "__pycache__").mkdir(parents=True)
    plugin = plugins / "deep" / "backend.py"
    plugin.write_text("a = 1")
    before = take_snapshot([str(plugins)])
    (plugins / "deep" / "__pycache__" / "backend.pyc").write_bytes(b"x")
    assert take_snapshot([str(plugins)]) == before
    plugin.write_text("a = 12")
    assert take_snapshot([str(plugins)]) != before


def test_missing_paths_are_not_in_the_snapshot(tmp_path: Path) -> None:
    assert take_snapshot([str(tmp_path / "airflow.cfg")]) == {}


def test_a_hanging_drive_blocks_one_thread_and_never_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = threading.Event()
    looks: list[object] = []

    def hang(places: object) -> dict[str, tuple[int, int]]:
        looks.append(places)
        away.wait(20)
        return {}

    monkeypatch.setattr(runtime_module, "take_snapshot", hang)
    monkeypatch.setattr(runtime_module, "LOOK_WITHIN_S", 0.05)
    launcher = SimpleNamespace(python=tmp_path / "bin/python")
    keeper = RuntimeKeeper(launcher, tmp_path / "canary", HandClock())  # type: ignore[arg-type]

    async def look_twice() -> None:
        assert await keeper._look() is None
        assert await keeper._look() is None
        assert len(looks) == 1
        away.set()
        with anyio.fail_after(60):
            while await keeper._look() is None:
                await anyio.sleep(0.01)

    anyio.run(look_twice)
