"""One chaos run: start its jobs, make its faults, undo them, wait for the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from e2e.chaos.schedule import MORTAL, Act, Schedule
from e2e.chaos.site import Site
from testkit.processes import wait_until

DAG = "chaos"
ENDS_WITHIN_S = 60
"""From the end of the last fault to the end of the last job: a new scheduler must adopt, back-offs must run out."""
TELL_EVERY_S = 7
PEOPLE_CAN_ACT_ON = ("queued", "running")
OPEN_RUNS = "SELECT 'run', run_id, state FROM dag_run WHERE run_id = ANY(:ids) AND state NOT IN ('success', 'failed')"
OPEN_TASKS = (
    "SELECT 'task', run_id, task_id, map_index, try_number, state FROM task_instance WHERE run_id = ANY(:ids) "
    "AND (state IS NULL OR state NOT IN ('success', 'failed', 'upstream_failed', 'removed'))"
)
OPEN_JOBS = (
    "SELECT 'job', id, task_id, map_index, try_number, state FROM remote_job WHERE run_id = ANY(:ids) AND ended_at IS NULL"
)


@dataclass
class DagRun:
    """One Dag run of a chaos run, and what people did to its tasks."""

    run_id: str
    directory: Path
    plan: dict[str, object]
    failed: set[str] = field(default_factory=set)
    """Tasks that a person has marked as failed, and nobody has cleared since."""
    touched: set[str] = field(default_factory=set)
    """Tasks that a person has marked or cleared: tries of theirs may have been stopped at any moment."""
    died: set[str] = field(default_factory=set)
    """Tries (as they call themselves) whose processes were killed: each may be one try more."""
    unsure: set[str] = field(default_factory=set)
    """Tasks for which central broke off before it said whether it had marked or cleared them."""


def play(site: Site, schedule: Schedule) -> list[DagRun]:
    """Play the *schedule*; return its Dag runs when all have ended and nothing is owed.

    Raises:
        AssertionError: a worker ended by itself, or something did not come to its end.
    """
    wait_until(site.is_whole, timeout_s=60, what="everything answers before the run", every_s=0.5)
    site.begin()
    runs = [_start(site, schedule, number) for number in range(len(schedule.plans))]
    begin = time.monotonic()
    todo: list[tuple[float, Callable[[], None]]] = [(act.at_s, _maker(site, act, runs)) for act in schedule.acts]
    while todo:
        todo.sort(key=lambda entry: entry[0])
        at_s, do = todo[0]
        wait_s = begin + at_s - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, 0.5))
            site.supervise()
            continue
        todo.pop(0)
        undo = do()
        if undo is not None:
            todo.append((at_s + undo[0], undo[1]))
    for proxy in site.proxies.values():
        proxy.forget_rules()
        proxy.heal()
    site.note("all faults have ended")
    _wait_for_the_end(site, runs)
    site.note("all has ended")
    return runs


def _start(site: Site, schedule: Schedule, number: int) -> DagRun:
    # The same seed may run twice on one site.
    run_id = f"seed-{schedule.seed}-{number}-{time.time():.0f}"
    directory = site.home / "marks" / run_id
    directory.mkdir(parents=True)
    plan = schedule.plans[number]
    site.central.trigger(DAG, {"directory": str(directory), "plan": plan}, run_id=run_id)
    return DagRun(run_id, directory, plan)


def _maker(site: Site, act: Act, runs: list[DagRun]) -> Callable[[], tuple[float, Callable[[], None]] | None]:
    def make() -> tuple[float, Callable[[], None]] | None:
        if act.what in ("fail", "clear"):
            _as_a_person(site, act, runs[act.detail[0]])
            return None
        if act.whom == MORTAL:
            _kill(site, act, runs[act.detail[0]])
            return None
        site.note(f"{act}")
        unmake = site.make(act)
        if unmake is None:
            return None

        def undo() -> None:
            site.note(f"       the end of {act.what} {act.whom}")
            unmake()

        return act.lasts_s, undo

    return make


def _as_a_person(site: Site, act: Act, run: DagRun) -> None:
    """Mark or clear the task, if there is something to stop and central answers; note what came of it."""
    task = act.whom
    try:
        state = site.central.task_instance(DAG, run.run_id, task)["state"]
    except httpx.HTTPError as error:
        site.note(f"{act}: central does not answer ({error!r})")
        return
    if state not in PEOPLE_CAN_ACT_ON:
        site.note(f"{act}: left alone, it is {state}")
        return
    try:
        if act.what == "fail":
            site.central.set_task_state(DAG, run.run_id, task, "failed")
            run.failed.add(task)
        else:
            site.central.clear_task(DAG, run.run_id, task)
            run.failed.discard(task)
        run.touched.add(task)
        site.note(f"{act}, which was {state}")
    except httpx.HTTPError as error:
        # Done or not: nobody knows.
        run.unsure.add(task)
        site.note(f"{act}: central broke off ({error!r})")


def _kill(site: Site, act: Act, run: DagRun) -> None:
    """Kill the task's process, or the shim that hosts it, if it runs just now."""
    for marks in run.directory.glob(f"{act.whom}.*"):
        told = marks.read_text().splitlines()
        if len(told) != 1:
            continue
        try:
            task = psutil.Process(int(told[0].split()[1]))
            victim = task.parent() if act.what == "kill shim" else task
            if victim is None or not any(victim.pid in site.processes(name) for name in site.workers):
                continue
            victim.kill()
        except psutil.NoSuchProcess:
            continue
        run.died.add(marks.name)
        site.note(f"{act}: pid {victim.pid}, {marks.name}")
        return
    site.note(f"{act}: left alone, it does not run")


def _wait_for_the_end(site: Site, runs: list[DagRun]) -> None:
    ids = [run.run_id for run in runs]

    def left() -> list[str]:
        site.supervise()
        found = []
        for what in (OPEN_RUNS, OPEN_TASKS, OPEN_JOBS):
            found += [" ".join(str(value) for value in row.values()) for row in site.central.query(what, ids=ids)]
        return found + [f"{name} owes {path.name}" for name in site.workers for path in site.owed(name)]

    def is_over() -> bool:
        nonlocal told_s
        found = left()
        if found and site.now_s - told_s > TELL_EVERY_S:
            told_s = site.now_s
            site.note(f"       left: {len(found)}, among them {'; '.join(found[:3])}")
        return not found

    told_s = site.now_s
    try:
        wait_until(is_over, timeout_s=ENDS_WITHIN_S, what="the runs, their jobs and the workers' debts end", every_s=0.5)
        wait_until(site.is_whole, timeout_s=60, what="everything answers after the run", every_s=0.5)
    except TimeoutError as error:
        raise AssertionError("\n".join([str(error), "left:", *left()])) from None
