"""`airflow remote queues …`: their depth, workers and rules."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.history import history, show_series
from airflow_remote_provider.cli.printing import output, show_rows, watch, watched
from airflow_remote_provider.cli.words import action, group, names_in, option

if TYPE_CHECKING:
    import argparse

COLUMNS = (
    "queue",
    "queued",
    "offered",
    "running",
    "oldest_queued_at",
    "workers",
    "free_slots",
    "wait_p50_s",
    "wait_p95_s",
    "lost_after_s",
    "bundles",
    "runtime",
    "changed_by",
)


def commands() -> Any:
    queue = option("name", help="the queue's name; for --bundles '*': all queues without a rule of their own")
    return group(
        "queues",
        "depth, workers and rules of the queues",
        action("list", "list all queues, with their depth, workers and rules", list_queues, output(), watch()),
        history("queues", "of all queues, or of those that are named", show_history),
        action(
            "set",
            "set the rules for jobs that are queued from now on",
            set_queue,
            queue,
            option(
                "--lost-after",
                default=None,
                help="how long a worker may be silent before such a job is lost: seconds, or 90s, 30m, 4h, 2d",
            ),
            option(
                "--bundles",
                default=None,
                help="Dag bundles that such a job may belong to, or it fails: names or globs, separated by commas; '*': any",
            ),
            option(
                "--runtime",
                default=None,
                help="runtime from central in which its jobs run, on workers that take one: its name; default: `default`",
            ),
        ),
        action("unset", "remove the rules of a queue; the defaults apply again", unset_queue, queue),
    )


@watched
def list_queues(args: argparse.Namespace) -> None:
    show_rows(central(args).list_queues(), args, COLUMNS)


@watched
def show_history(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.history import SeriesKind

    show_series(args, SeriesKind.QUEUE)


def set_queue(args: argparse.Namespace) -> None:
    from airflow_remote_provider.definitions.task_options import lost_after_s

    if args.lost_after is None and args.bundles is None and args.runtime is None:
        raise SystemExit("name at least one of --lost-after, --bundles, --runtime")
    if args.lost_after is not None:
        try:
            seconds = lost_after_s(args.lost_after)
        except ValueError as error:
            raise SystemExit(f"--lost-after {args.lost_after}: {error}") from None
        central(args).set_queue(args.name, lost_after_s=seconds)
        print(f"{args.name}: jobs queued from now on are lost after {timedelta(seconds=seconds)} of silence")
    if args.bundles is not None:
        bundles = names_in(args.bundles)
        central(args).set_queue_bundles(args.name, bundles)
        print(f"{args.name}: jobs queued from now on may belong to the bundles {', '.join(bundles)}")
    if args.runtime is not None:
        set_runtime(args, args.name, args.runtime)


def set_runtime(args: argparse.Namespace, queue: str, runtime: str) -> None:
    central(args).set_queue_runtime(queue, None if runtime == "default" else runtime)
    print(f"{queue}: jobs offered from now on run in the runtime {runtime}, on workers that take it from central")


def unset_queue(args: argparse.Namespace) -> None:
    central(args).unset_queue(args.name)
    print(f"{args.name}: the defaults apply")
