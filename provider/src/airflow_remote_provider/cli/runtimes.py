"""`airflow remote runtimes …`: the runtimes that central sends to workers, and their rollouts."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli import build_runtime
from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.printing import output, show_facts, show_row, show_rows, show_signed, show_table, watch, watched
from airflow_remote_provider.cli.queues import set_runtime
from airflow_remote_provider.cli.rolling import roll_options, roll_with, short
from airflow_remote_provider.cli.words import action, group, option

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from airflow_remote_provider.ledger.views.runtimes import RuntimeSummary

COLUMNS = (
    "name",
    "serial",
    "built",
    "percent",
    "labels",
    "halted",
    "platforms",
    "queues",
    "workers",
    "ready",
    "preparing",
    "failed",
    "missing",
    "trouble",
)
EDITIONS = ("serial", "platform", "tree", "files", "bytes", "published_at", "ready", "jobs")
WORKERS = ("worker", "platform", "serial", "phase", "ready_serials", "airflow", "task_sdk", "python", "detail")


def commands() -> Any:
    name = option("name", help="the runtime's name")
    return group(
        "runtimes",
        "runtimes that central sends to workers: what is built, and which workers have which",
        build_runtime.command(),
        action("list", "list all runtimes, with their rollouts", list_runtimes, output(), watch()),
        action("show", "show one runtime: its recipe, its editions, and what each worker has", show, name, output(), watch()),
        action(
            "roll",
            "roll the newest build out to all workers or to a share of them; halt or resume a rollout; roll back",
            roll,
            name,
            *roll_options(),
        ),
        action(
            "assign",
            "let the jobs of queues run in a runtime; `default` removes the rule",
            assign,
            name,
            option("queues", nargs="+", help="names of queues"),
        ),
    )


@watched
def list_runtimes(args: argparse.Namespace) -> None:
    show_rows(central(args).list_runtimes(), args, COLUMNS)


@watched
def show(args: argparse.Namespace) -> None:
    found = central(args).show_runtime(args.name)
    if args.output != "table":
        show_row(found, args)
        return
    facts = {name: value for name, value in asdict(found).items() if name not in ("about", "editions", "workers", "statements")}
    show_facts({**asdict(found.about), **facts}, args)
    for title, columns, rows in (("editions", EDITIONS, found.editions), ("workers", WORKERS, found.workers)):
        if rows:
            print(f"\n{title}:")
            show_table([short(asdict(row)) for row in rows], columns)
    show_signed(found.statements)


def roll(args: argparse.Namespace) -> None:
    found, name = central(args), args.name

    def begin(percent: int, labels: Mapping[str, str], to: int | None) -> RuntimeSummary:
        return found.roll_runtime(name, percent=percent, labels=labels, to=to)

    halt = partial(found.halt_runtime, name, reason=args.reason)
    _tell(roll_with(args, begin, halt=halt, resume=partial(found.resume_runtime, name)))


def assign(args: argparse.Namespace) -> None:
    for queue in args.queues:
        set_runtime(args, queue, args.name)


def _tell(about: RuntimeSummary) -> None:
    labels = f" with {', '.join(f'{key}={value}' for key, value in sorted(about.labels.items()))}" if about.labels else ""
    whom = "all workers" if about.percent == 100 else f"{about.percent} % of the workers"
    if about.halted:
        text = f"halted ({about.halted}); workers without it are to have serial {about.previous}"
    else:
        others = f"; the others are to have serial {about.previous}" if about.previous and (labels or about.percent < 100) else ""
        text = f"rolled out to {whom}{labels}{others}"
    print(f"{about.name}: serial {about.serial} is {text}. {about.ready} of {about.workers} worker(s) have theirs ready")
