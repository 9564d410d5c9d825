"""Tests e2e/chaos/invariants.py: a correct run has no violations, and each kind of error is one violation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from e2e.chaos import invariants
from e2e.chaos.invariants import Try
from e2e.chaos.run import DagRun
from e2e.chaos.schedule import Schedule, expected, lines


class _Site:
    """A stand-in for a site after a correct run, which tests modify."""

    def __init__(self, home: Path, run: DagRun) -> None:
        self.home = home
        self.xcoms: dict[tuple[str, int, str], Any] = {}
        self.tries: list[Try] = []
        self.rows: list[dict[str, Any]] = []
        self.workers = {"east": SimpleNamespace(name="east", state=home / "east", pid=0)}
        self.central = SimpleNamespace(
            query=self._query, xcoms=self._xcoms, jobs=lambda run_id: self.rows, log_file=self._log_file
        )
        for (task, index), ends in expected(run.plan).items():
            if ends.xcom is not None:
                self.xcoms[task, index, "return_value"] = ends.xcom
            for number in range(1, ends.tries + 1):
                is_last = number == ends.tries
                self.add(run, Try(task, index, number, ends.state if is_last else "failed", is_last))
        for number in range(run.plan["reader"]["rounds"]):
            self.xcoms["reader", -1, f"round {number}"] = f"from central {number}"
        self.xcoms["refused", -1, "value"] = "AirflowRuntimeError"

    def add(self, run: DagRun, this: Try) -> None:
        self.tries.append(this)
        (run.directory / this.name).write_text(f"begin 7 {10 * this.number}\nend 7 {10 * this.number + 5}\n")
        text = "".join(f'{{"event":"{this.name} says {n}"}}\n' for n in range(lines(run.plan, this.task_id, this.map_index)))
        job = {
            "id": f"job-{this.name}",
            "task_id": this.task_id,
            "map_index": this.map_index,
            "try_number": this.number,
            "epoch": 1,
            "state": "succeeded",
            "reason": "",
            "settled_at": "now",
            "owner": "",
        }
        self.rows.append(job)
        for path in (self.local_log(this), self._log_file("", "", this.task_id, this.number, map_index=this.map_index)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def local_log(self, this: Try) -> Path:
        return self.home / "east" / "jobs" / f"job-{this.name}.1" / "task.log"

    def find_try(self, name: str) -> Try:
        return next(this for this in self.tries if this.name == name)

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.rows if row["id"] == f"job-{name}")

    def processes(self, worker: str) -> set[int]:
        return set()

    def _log_file(self, dag: str, run: str, task: str, number: int = 1, *, map_index: int = -1) -> Path:
        return self.home / "central" / f"{task}.{map_index}.{number}"

    def _xcoms(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return [{"task_id": t, "map_index": i, "key": k, "value": v} for (t, i, k), v in self.xcoms.items()]

    def _query(self, sql: str, **values: object) -> list[dict[str, Any]]:
        if "FROM job" in sql:
            return [{"id": 1}]
        return [
            {"task_id": this.task_id, "map_index": this.map_index, "try_number": this.number, "state": this.state}
            for this in self.tries
            if this.is_last != ("history" in sql)
        ]


@pytest.fixture
def run(tmp_path: Path) -> DagRun:
    (tmp_path / "marks").mkdir()
    return DagRun("run", tmp_path / "marks", Schedule.of(1).plans[0])


@pytest.fixture
def site(tmp_path: Path, run: DagRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Site]:
    monkeypatch.setattr(invariants, "SETTLED_WITHIN_S", 0)
    monkeypatch.setattr(invariants, "GONE_WITHIN_S", 0)
    return _Site(tmp_path, run)


def _found(site: _Site, run: DagRun) -> list[str]:
    return invariants.violations(site, [run])  # type: ignore[arg-type]


def test_a_correct_run_has_no_violations(site: _Site, run: DagRun) -> None:
    assert _found(site, run) == []


def test_a_try_that_began_twice_is_a_violation(site: _Site, run: DagRun) -> None:
    with (run.directory / "long.-1.1").open("a") as marks:
        marks.write("begin 8 11\n")
    [what] = _found(site, run)
    assert "long.-1.1" in what and "check_tries" in what


def test_tries_without_begin_or_end_are_violations(site: _Site, run: DagRun) -> None:
    (run.directory / "long.-1.1").unlink()
    (run.directory / "total.-1.1").write_text("begin 7 10\n")
    assert len([what for what in _found(site, run) if "check_tries" in what]) == 2


def test_a_try_unknown_to_airflow_is_a_violation(site: _Site, run: DagRun) -> None:
    (run.directory / "long.-1.2").write_text("begin 7 90\n")
    assert any("no such try" in what for what in _found(site, run))


def test_overlapping_tries_are_a_violation(site: _Site, run: DagRun) -> None:
    (run.directory / "doomed.-1.1").write_text("begin 7 10\nend 7 21\n")
    [what] = _found(site, run)
    assert "still ran" in what


def test_a_wrong_state_and_an_extra_try_are_two_violations(site: _Site, run: DagRun) -> None:
    site.tries.remove(site.find_try("long.-1.1"))
    site.add(run, Try("long", -1, 1, "failed", False))
    site.add(run, Try("long", -1, 2, "failed", True))
    assert len([what for what in _found(site, run) if "check_states" in what]) == 2


def test_a_lost_user_action_is_a_violation(site: _Site, run: DagRun) -> None:
    run.failed.add("long")
    run.touched.add("long")
    [what] = _found(site, run)
    assert "long.-1.1 is success, not failed" in what


def test_a_lost_xcom_is_a_violation(site: _Site, run: DagRun) -> None:
    del site.xcoms["reader", -1, "round 1"]
    [what] = _found(site, run)
    assert "check_xcoms" in what


def test_a_log_with_missing_or_different_bytes_is_a_violation(site: _Site, run: DagRun) -> None:
    for name, change in (("long.-1.1", lambda text: text[:-1]), ("reader.-1.1", lambda text: text.replace("says 0", "sags 0"))):
        path = site.home / "central" / name
        path.write_text(change(path.read_text()))
    found = _found(site, run)
    assert [what.split()[5] for what in found if "bytes" in what] == ["reader.-1.1", "long.-1.1"]


def test_a_duplicate_line_is_a_violation_even_if_both_sides_have_it(site: _Site, run: DagRun) -> None:
    for path in (site.home / "central" / "long.-1.1", site.local_log(site.find_try("long.-1.1"))):
        path.write_text(path.read_text() + '{"event":"long.-1.1 says 0"}\n')
    [what] = _found(site, run)
    assert "contains the lines" in what


@pytest.mark.parametrize(
    "change", [{"state": "lost"}, {"state": "running"}, {"state": "revoked"}, {"settled_at": None, "owner": "1"}]
)
def test_a_wrong_job_row_is_a_violation(site: _Site, run: DagRun, change: dict[str, Any]) -> None:
    site.row("long.-1.1").update(change)
    [what] = _found(site, run)
    assert "check_jobs" in what


def test_a_remaining_process_is_a_violation(site: _Site, run: DagRun, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    site.processes = lambda worker: {os.getpid()}  # type: ignore[method-assign]
    [what] = _found(site, run)
    assert "check_processes" in what
