"""`airflow remote runtimes …`: the runtimes that central sends to workers, and their rollouts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli import build_runtime
from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.printing import output, show_facts, show_row, show_rows, show_table, watch, watched
from airflow_remote_provider.cli.queues import set_runtime
from airflow_remote_provider.cli.words import action, group, labels_in, option, reason

if TYPE_CHECKING:
    import argparse

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
DIGITS = 12
"""Of a digest, in tables: as in a task's log."""


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
            option("--percent", type=int, default=None, help="share of the workers, 0 to 100; default: 100"),
            option("--label", default="", metavar="KEY=VALUE,…", help="only workers with these labels; default: all workers"),
            option("--to", type=int, default=None, metavar="SERIAL", help="roll the trees of this serial out again"),
            option("--halt", action="store_true", help="halt: only workers that have the rolled serial ready keep it"),
            option("--resume", action="store_true", help="resume a halted rollout"),
            reason(),
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
    facts = {name: value for name, value in asdict(found).items() if name not in ("about", "editions", "workers")}
    show_facts({**asdict(found.about), **facts}, args)
    for title, columns, rows in (("editions", EDITIONS, found.editions), ("workers", WORKERS, found.workers)):
        if rows:
            print(f"\n{title}:")
            show_table([_short(asdict(row)) for row in rows], columns)


def roll(args: argparse.Namespace) -> None:
    rolls = args.percent is not None or args.label or args.to is not None
    if sum((bool(rolls), args.halt, args.resume)) > 1:
        raise SystemExit("name only one of --halt, --resume, and the options of a rollout (--percent, --label, --to)")
    if args.halt:
        _tell(central(args).halt_runtime(args.name, reason=args.reason))
    elif args.resume:
        _tell(central(args).resume_runtime(args.name))
    else:
        percent = 100 if args.percent is None else args.percent
        _tell(central(args).roll_runtime(args.name, percent=percent, labels=labels_in(args.label), to=args.to))


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


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for a table, with the first digits of its tree. JSON and YAML have them all."""
    return {**row, "tree": row["tree"][:DIGITS]} if "tree" in row else row
