"""Detecting changes of a bundle's code."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
from airflow_remote_worker.triggers.code_state import LOOK_EVERY_S, CodeStates, mark_of

from ..conftest import HandClock


def test_a_change_an_addition_and_a_removal_change_the_mark(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "a.py").write_text("1")
    marks = [mark_of(str(tmp_path))]
    (tmp_path / "b.py").write_text("2")
    marks.append(mark_of(str(tmp_path)))
    os.utime(tmp_path / "package" / "a.py", ns=(0, 2**62))
    marks.append(mark_of(str(tmp_path)))
    (tmp_path / "b.py").unlink()
    marks.append(mark_of(str(tmp_path)))
    assert len(set(marks)) == 4


def test_files_that_are_not_code_do_not_change_the_mark(tmp_path: Path) -> None:
    before = mark_of(str(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.py").write_text("")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "b.py").write_text("")
    (tmp_path / "data.csv").write_text("")
    assert mark_of(str(tmp_path)) == before


def test_a_bundle_is_not_checked_for_each_trigger(clock: HandClock) -> None:
    looks: list[str] = []

    def look(root: str) -> str:
        looks.append(root)
        return str(len(looks))

    async def ask() -> list[str]:
        states = CodeStates(clock, look)
        marks = [await states.of("/a"), await states.of("/a"), await states.of("/b")]
        clock.now += LOOK_EVERY_S
        return [*marks, await states.of("/a")]

    assert anyio.run(ask) == ["1", "1", "2", "3"]
