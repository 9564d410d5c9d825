"""The schedule of a chaos run as a pure function of its seed: the jobs' work, the faults and their times, the users' actions.

Owns the decisions and the expected results. It does not depend on how a fault is made (`site.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

FAULTS_S = 28.0
"""All faults begin and end within this time, counted from the start of the run's jobs."""
RUNS = 2
"""The number of Dag runs in one chaos run."""
WORKERS = ("east", "west")
PAGES = ("bad gateway", "no backend", "gateway timeout", "internal error", "login page", "redirect", "forbidden", "not found")
DEAD_CONNECTIONS = ("cut", "cut", "forgotten")
"""The fate of connections that have lost bytes after a fault: only timeouts, of up to half a minute, detect forgotten ones."""
TARGETS = ("long", "long_shell")
"""The tasks that users mark as failed and clear: no other task depends on them."""
MORTAL = "mortal"
"""The task whose processes are killed."""

REPLIES = (
    ("POST", "/report$"),
    ("POST", "/log"),
    ("POST", "/poll$"),
    ("POST", "/session$"),
    ("PATCH", "/run$"),
    ("PATCH", "/state$"),
    ("POST", "/xcoms/"),
    ("GET", "/variables/"),
    ("*", ""),
)
"""The requests whose replies are lost or cut."""


@dataclass(frozen=True)
class Act:
    """One event at *at_s*, which affects *target* and is undone after *lasts_s* if possible."""

    at_s: float
    what: str
    target: str
    lasts_s: float = 0
    detail: tuple[Any, ...] = ()

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return " ".join([f"{self.at_s:5.1f} s", self.what, self.target, *map(str, self.detail)]) + lasts


@dataclass(frozen=True)
class Schedule:
    """One chaos run. *plans* define the jobs' work, one for each Dag run."""

    seed: int
    acts: tuple[Act, ...]
    plans: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, seed: int) -> Schedule:
        dice = random.Random(seed)
        plans = tuple(_plan(dice) for _ in range(RUNS))
        acts = [act for lane in _LANES for act in lane(dice)]
        return cls(seed, tuple(sorted(acts, key=lambda act: act.at_s)), plans)


def _plan(dice: random.Random) -> dict[str, Any]:
    return {
        "work": [
            {"seconds": round(dice.uniform(0.2, 5), 1), "lines": dice.randint(1, 200), "fails": dice.choice((0, 0, 0, 1, 2))}
            for _ in range(dice.randint(2, 4))
        ],
        "shell": {"lines": dice.randint(1, 20), "pause_s": 0.1},
        "reader": {"rounds": dice.randint(3, 8), "pause_s": round(dice.uniform(0.3, 2), 1)},
        "long": {"lines": dice.randint(5, 2000), "seconds": round(dice.uniform(10, 22), 1)},
        "mortal": {"lines": dice.randint(5, 50), "seconds": round(dice.uniform(6, 15), 1)},
        "long_shell": {"lines": dice.randint(40, 70), "pause_s": 0.3},
    }


def _times(dice: random.Random, count: int, longest_s: float) -> Iterator[tuple[float, float]]:
    """Yield start times and durations that don't overlap."""
    piece_s = FAULTS_S / count
    for number in range(count):
        lasts_s = min(dice.uniform(0.3, longest_s), piece_s - 0.2)
        yield round(number * piece_s + dice.uniform(0, piece_s - lasts_s), 1), round(lasts_s, 1)


def _network(worker: str) -> Callable[[random.Random], Iterator[Act]]:
    def lane(dice: random.Random) -> Iterator[Act]:
        for at_s, lasts_s in _times(dice, dice.randint(1, 4), 9):
            kinds: tuple[tuple[str, tuple[Any, ...]], ...] = (
                ("refuse", ()),
                ("reset", ()),
                ("black_hole", (dice.choice(DEAD_CONNECTIONS),)),
                ("half_open", (dice.choice(("requests", "replies")), dice.choice(DEAD_CONNECTIONS))),
                ("stall", ()),
                ("slow", (round(dice.uniform(0.05, 1.5), 2), dice.choice((None, 2_000, 20_000)))),
                ("answer", (dice.choice(PAGES),)),
                ("drop_replies", (*dice.choice(REPLIES), dice.randint(1, 4))),
                (
                    "cut_requests",
                    (dice.choice((dice.randint(1, 400), dice.randint(400, 900))), *dice.choice(REPLIES), dice.randint(1, 4)),
                ),
                ("cut_replies", (dice.randint(1, 600), *dice.choice(REPLIES), dice.randint(1, 4))),
                ("cut", ()),
            )
            what, detail = dice.choice(kinds)
            yield Act(at_s, what, worker, 0 if what == "cut" else lasts_s, detail)

    return lane


def _daemon(worker: str) -> Callable[[random.Random], Iterator[Act]]:
    def lane(dice: random.Random) -> Iterator[Act]:
        for at_s, lasts_s in _times(dice, dice.choice((1, 1, 2)), 4):
            what = dice.choice(("nothing", "kill -9", "kill -9", "terminate"))
            if what != "nothing":
                yield Act(at_s, what, worker, lasts_s)

    return lane


def _central(dice: random.Random) -> Iterator[Act]:
    # Each takes several seconds to start again, so only one, or two different ones.
    target = dice.sample(("api-server", "scheduler", "postgres"), dice.randint(1, 2))
    for name, (at_s, lasts_s) in zip(target, _times(dice, len(target), 3), strict=True):
        yield Act(at_s, dice.choice(("kill -9", "kill -9", "terminate")), name, lasts_s)


def _users(dice: random.Random) -> Iterator[Act]:
    target = [(run, task) for run in range(RUNS) for task in TARGETS]
    for run, task in dice.sample(target, dice.randint(0, 3)):
        yield Act(round(dice.uniform(3, 18), 1), dice.choice(("fail", "clear")), task, detail=(run,))


def _death(dice: random.Random) -> Iterator[Act]:
    for run in dice.sample(range(RUNS), dice.randint(0, RUNS)):
        yield Act(round(dice.uniform(3, 12), 1), dice.choice(("kill shim", "kill task")), MORTAL, detail=(run,))


_LANES = (*map(_network, WORKERS), *map(_daemon, WORKERS), _central, _users, _death)


@dataclass(frozen=True)
class Expected:
    """The expected end of a task without a user's action: the number of tries, the state, the XCom."""

    tries: int
    state: str
    xcom: Any = None


def expected(plan: dict[str, Any]) -> dict[tuple[str, int], Expected]:
    """Return the expected end of each task (id, map index) of a Dag run with *plan*."""
    count = len(plan["work"])
    total = sum(number * number for number in range(count))
    text = f"the total is {total}"
    ends = {
        ("numbers", -1): Expected(1, "success", list(range(count))),
        ("total", -1): Expected(1, "success", total),
        ("shell", -1): Expected(1, "success", text),
        ("check", -1): Expected(1, "success", text),
        ("reader", -1): Expected(1, "success", plan["reader"]["rounds"]),
        ("long", -1): Expected(1, "success", "done"),
        ("long_shell", -1): Expected(1, "success"),
        (MORTAL, -1): Expected(1, "success", "survived"),
        ("doomed", -1): Expected(2, "failed"),
        ("refused", -1): Expected(1, "failed"),
    }
    for number, work in enumerate(plan["work"]):
        ends["work", number] = Expected(1 + work["fails"], "success", number * number)
    return ends


def lines(plan: dict[str, Any], task_id: str, map_index: int) -> int:
    """Return the number of known lines that one complete try of the task prints."""
    if task_id == "work":
        return int(plan["work"][map_index]["lines"])
    if task_id == "reader":
        return 2 * int(plan["reader"]["rounds"])
    fixed = {"numbers": 5, "total": 3, "doomed": 4, "refused": 4, "check": 0}
    return fixed[task_id] if task_id in fixed else int(plan[task_id]["lines"])
