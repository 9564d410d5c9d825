"""Runs one chaos schedule: starts its jobs, makes its faults, undoes them, and waits for the end."""

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
"""From the end of the last fault to the end of the last job: a new scheduler adopts jobs, back-offs expire."""
NOTE_EVERY_S = 7
USERS_CAN_ACT_ON = ("queued", "running")
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
    """One Dag run of a chaos run, and the actions on its tasks."""

    run_id: str
    directory: Path
    plan: dict[str, object]
    failed: set[str] = field(default_factory=set)
    """Tasks that a user has marked as failed and not cleared since."""
    touched: set[str] = field(default_factory=set)
    """Tasks that a user has marked or cleared: their tries can have been stopped at any moment."""
    died: set[str] = field(default_factory=set)
    """Names of tries whose processes were killed: each can cause one more try."""
    unsure: set[str] = field(default_factory=set)
    """Tasks that central may or may not have marked or cleared: the connection failed before its answer."""


def run_schedule(site: Site, schedule: Schedule) -> list[DagRun]:
    """Run the *schedule*; return its Dag runs when all have ended and the workers have sent everything.

    Raises:
        AssertionError: a worker ended by itself, or a run, a job or a worker's outbox did not finish in time.
    """
    wait_until(site.is_whole, timeout_s=60, what="everything answers before the run", every_s=0.5)
    site.begin()
    runs = [_start(site, schedule, number) for number in range(len(schedule.plans))]
    begin = time.monotonic()
    todo: list[tuple[float, Callable[[], None]]] = [(act.at_s, _make_action(site, act, runs)) for act in schedule.acts]
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
    # The same seed can run twice on one site.
    run_id = f"seed-{schedule.seed}-{number}-{time.time():.0f}"
    directory = site.home / "marks" / run_id
    directory.mkdir(parents=True)
    plan = schedule.plans[number]
    site.central.trigger(DAG, {"directory": str(directory), "plan": plan}, run_id=run_id)
    return DagRun(run_id, directory, plan)


def _make_action(site: Site, act: Act, runs: list[DagRun]) -> Callable[[], tuple[float, Callable[[], None]] | None]:
    def make() -> tuple[float, Callable[[], None]] | None:
        if act.what in ("fail", "clear"):
            _act_as_user(site, act, runs[act.detail[0]])
            return None
        if act.target == MORTAL:
            _kill(site, act, runs[act.detail[0]])
            return None
        site.note(f"{act}")
        unmake = site.make(act)
        if unmake is None:
            return None

        def undo() -> None:
            site.note(f"       the end of {act.what} {act.target}")
            unmake()

        return act.lasts_s, undo

    return make


def _act_as_user(site: Site, act: Act, run: DagRun) -> None:
    """Mark or clear the task, if it is queued or running and central answers; note the outcome."""
    task = act.target
    try:
        state = site.central.task_instance(DAG, run.run_id, task)["state"]
    except httpx.HTTPError as error:
        site.note(f"{act}: central does not answer ({error!r})")
        return
    if state not in USERS_CAN_ACT_ON:
        site.note(f"{act}: skipped, it is {state}")
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
        # Whether it was done is unknown.
        run.unsure.add(task)
        site.note(f"{act}: the request failed ({error!r})")


def _kill(site: Site, act: Act, run: DagRun) -> None:
    """Kill the task's process, or the shim that hosts it, if it is running."""
    for marks in run.directory.glob(f"{act.target}.*"):
        lines = marks.read_text().splitlines()
        if len(lines) != 1:
            continue
        try:
            task = psutil.Process(int(lines[0].split()[1]))
            victim = task.parent() if act.what == "kill shim" else task
            if victim is None or not any(victim.pid in site.processes(name) for name in site.workers):
                continue
            victim.kill()
        except psutil.NoSuchProcess:
            continue
        run.died.add(marks.name)
        site.note(f"{act}: pid {victim.pid}, {marks.name}")
        return
    site.note(f"{act}: skipped, it does not run")


def _wait_for_the_end(site: Site, runs: list[DagRun]) -> None:
    ids = [run.run_id for run in runs]

    def left() -> list[str]:
        site.supervise()
        found = []
        for what in (OPEN_RUNS, OPEN_TASKS, OPEN_JOBS):
            found += [" ".join(str(value) for value in row.values()) for row in site.central.query(what, ids=ids)]
        return found + [f"{name} has not sent {path.name}" for name in site.workers for path in site.unsent(name)]

    def is_over() -> bool:
        nonlocal noted_s
        found = left()
        if found and site.now_s - noted_s > NOTE_EVERY_S:
            noted_s = site.now_s
            site.note(f"       left: {len(found)}, among them {'; '.join(found[:3])}")
        return not found

    noted_s = site.now_s
    try:
        wait_until(
            is_over, timeout_s=ENDS_WITHIN_S, what="the runs and their jobs end, and the workers send everything", every_s=0.5
        )
        wait_until(site.is_whole, timeout_s=60, what="everything answers after the run", every_s=0.5)
    except TimeoutError as error:
        raise AssertionError("\n".join([str(error), "left:", *left()])) from None
