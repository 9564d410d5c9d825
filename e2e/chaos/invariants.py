"""The invariants that hold after every chaos run. Each function yields the violations of one invariant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from e2e.chaos.run import DAG, DagRun
from e2e.chaos.schedule import expected, lines
from e2e.chaos.site import Site
from testkit.processes import wait_until

Key = tuple[str, int]
"""A task of a Dag run: its id and map index."""
GONE_WITHIN_S = 15
SETTLED_WITHIN_S = 15
RAN = frozenset({"success", "failed", "up_for_retry"})


@dataclass(frozen=True)
class Try:
    """One try as Airflow recorded it."""

    task_id: str
    map_index: int
    number: int
    state: str | None
    is_last: bool

    @property
    def name(self) -> str:
        """The name of the try in its marks and log lines."""
        return f"{self.task_id}.{self.map_index}.{self.number}"


def violations(site: Site, runs: list[DagRun]) -> list[str]:
    """Return the descriptions of all violations."""
    found: list[str] = []
    for run in runs:
        tries = _tries(site, run)
        for invariant in (check_states, check_tries, check_xcoms, check_logs, check_jobs):
            found += [f"{run.run_id}: {invariant.__name__}: {what}" for what in invariant(site, run, tries)]
    found += [f"check_processes: {what}" for what in check_processes(site)]
    return found


def check_states(site: Site, run: DagRun, tries: list[Try]) -> Iterator[str]:
    """Check that every task ended in the state of its plan, or as a user marked it, after the planned number of tries."""
    last = {(this.task_id, this.map_index): this for this in tries if this.is_last}
    wanted = expected(run.plan)
    if last.keys() != wanted.keys():
        yield f"tasks are {sorted(last)}, not {sorted(wanted)}"
    for key in last.keys() & wanted.keys():
        if key[0] in run.unsure:
            continue
        state = "failed" if key[0] in run.failed else wanted[key].state
        if last[key].state != state:
            yield f"{last[key].name} is {last[key].state}, not {state}"
        # A process that is killed after its task has ended does not cause another try.
        deaths = sum(name.startswith(f"{key[0]}.{key[1]}.") for name in run.died)
        most = wanted[key].tries + deaths
        if key[0] not in run.touched and not wanted[key].tries <= last[key].number <= most:
            yield f"{last[key].name} is the last try, not {wanted[key].tries} (and {deaths} deaths)"


def check_tries(site: Site, run: DagRun, tries: list[Try]) -> Iterator[str]:
    """Check that user code ran once for each try, to its end unless stopped or killed, and that a task's tries never overlap."""
    marks = {path.name: [line.split() for line in path.read_text().splitlines()] for path in run.directory.iterdir()}
    known = {this.name for this in tries}
    for name in marks.keys() - known:
        yield f"{name} ran, but Airflow has no such try"
    for this in tries:
        whats = [mark[0] for mark in marks.get(this.name, [])]
        allowed = [["begin", "end"]]
        if this.task_id in run.touched | run.unsure:
            # It was stopped before it began, or while it ran.
            allowed += [[], ["begin"]]
        if this.name in run.died:
            allowed += [["begin"]]
        if whats not in allowed:
            yield f"{this.name} ({this.state}) left the marks {marks.get(this.name)}, not one begin and one end"
    for this in tries:
        after = marks.get(f"{this.task_id}.{this.map_index}.{this.number + 1}")
        before = marks.get(this.name)
        if before and after and this.task_id not in run.touched | run.unsure and float(after[0][-1]) < float(before[-1][-1]):
            yield f"{this.name} still ran when its next try began: {before}, {after}"


def check_xcoms(site: Site, run: DagRun, tries: list[Try]) -> Iterator[str]:
    """Check that every returned and pushed XCom exists once and has the right value."""
    rows = site.central.xcoms(DAG, run.run_id)
    found = {(row["task_id"], row["map_index"], row["key"]): row["value"] for row in rows}
    wanted: dict[tuple[str, int, str], Any] = {
        (*key, "return_value"): task.xcom
        for key, task in expected(run.plan).items()
        if task.xcom is not None and key[0] not in run.touched | run.unsure
    }
    rounds = run.plan["reader"]["rounds"]
    wanted |= {("reader", -1, f"round {number}"): f"from central {number}" for number in range(rounds)}
    wanted["refused", -1, "value"] = "AirflowRuntimeError"
    for name, value in wanted.items():
        if found.get(name) != value:
            yield f"XCom {name} is {found.get(name)!r}, not {value!r}"


def check_logs(site: Site, run: DagRun, tries: list[Try]) -> Iterator[str]:
    """Check that central's log of each try has the same bytes as its worker's, and contains each line of the try once."""
    for this in tries:
        there = _local_logs(site, run, this)
        path = site.central.log_file(DAG, run.run_id, this.task_id, this.number, map_index=this.map_index)
        here = path.read_bytes() if path.exists() else b""
        if here != there:
            at = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), min(len(here), len(there)))
            yield f"the log of {this.name} is {len(here)} bytes, its worker's {len(there)}; they differ at byte {at} ({path})"
        stopped = this.task_id in run.touched | run.unsure or this.name in run.died
        if (run.directory / this.name).exists() and not stopped:
            printed = Counter(int(number) for number in re.findall(rf'"{re.escape(this.name)} says (\d+)"', here.decode()))
            if printed != Counter(range(lines(run.plan, this.task_id, this.map_index))):
                yield f"the log of {this.name} contains the lines {dict(printed)} ({path})"


def check_jobs(site: Site, run: DagRun, tries: list[Try]) -> Iterator[str]:
    """Check that every job has ended and is settled, that no job is lost, and that no job was revoked without a user's action."""

    def jobs() -> list[dict[str, Any]]:
        return site.central.jobs(run.run_id)

    living = {
        str(row["id"]) for row in site.central.query("SELECT id FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'")
    }

    def unsettled() -> list[dict[str, Any]]:
        return [
            job for job in jobs() if not job["settled_at"] and any(part in living for part in re.findall(r"\d+", job["owner"]))
        ]

    try:
        wait_until(lambda: not unsettled(), timeout_s=SETTLED_WITHIN_S, what="all jobs are settled", every_s=0.5)
    except TimeoutError:
        yield from (f"job {job['id']} ({job['task_id']}) of {job['owner']} is not settled" for job in unsettled())
    for job in jobs():
        name = f"job {job['id']} ({job['task_id']}.{job['map_index']}.{job['try_number']}, {job['state']}: {job['reason']})"
        if job["state"] not in ("succeeded", "failed", "revoked"):
            yield f"{name} is neither succeeded, failed nor revoked"
        if job["state"] == "revoked" and job["task_id"] not in run.touched | run.unsure and job["epoch"] > 0:
            yield f"{name} was revoked without a user's action"


def check_processes(site: Site) -> Iterator[str]:
    """Check that each worker has no processes except its daemon and the daemon's zygote."""
    for worker in site.workers.values():

        def left(worker: Any = worker) -> list[str]:
            strays = site.processes(worker.name) - {worker.pid}
            return [f"{p.pid} {p.status()} {' '.join(p.cmdline())[:200]}" for p in _living(strays) if p.ppid() != worker.pid]

        try:
            wait_until(lambda: not left(), timeout_s=GONE_WITHIN_S, what="no process is left")
        except TimeoutError:
            yield from (f"on {worker.name}: {what}" for what in left())


def _tries(site: Site, run: DagRun) -> list[Try]:
    select = "SELECT task_id, map_index, try_number, state FROM {} WHERE dag_id = :dag AND run_id = :run"
    last = site.central.query(select.format("task_instance"), dag=DAG, run=run.run_id)
    old = site.central.query(select.format("task_instance_history"), dag=DAG, run=run.run_id)
    return [
        Try(row["task_id"], row["map_index"], row["try_number"], row["state"], is_last)
        for rows, is_last in ((old, False), (last, True))
        for row in rows
    ]


def _local_logs(site: Site, run: DagRun, this: Try) -> bytes:
    """Return the workers' logs of the try, one lease after the other."""
    jobs = [
        job
        for job in site.central.jobs(run.run_id)
        if (job["task_id"], job["map_index"], job["try_number"]) == (this.task_id, this.map_index, this.number)
    ]
    found = []
    for job in jobs:
        for epoch in range(1, job["epoch"] + 1):
            for worker in site.workers.values():
                path = worker.state / "jobs" / f"{job['id']}.{epoch}" / "task.log"
                if path.exists():
                    found.append(path.read_bytes())
    return b"".join(found)


def _living(pids: set[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
