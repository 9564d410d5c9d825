"""`airflow remote jobs …`: what runs and waits, why it waits, and an end to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.central import central, limit
from airflow_remote_provider.cli.printing import output, show_row, show_rows, watch, watched
from airflow_remote_provider.cli.words import action, group, limited, option, reason, span_in

if TYPE_CHECKING:
    import argparse

COLUMNS = ("id", "kind", "state", "queue", "worker", "dag_id", "task_id", "map_index", "try_number", "queued_at", "reason")


def commands() -> Any:
    from airflow_remote_protocol.messages import JobKind
    from airflow_remote_protocol.states import JobState

    job = option("id", help="the job's id")
    return group(
        "jobs",
        "jobs",
        action(
            "list",
            "show the newest jobs",
            list_jobs,
            option("--state", default=None, choices=[state.value for state in JobState], help="only in this state"),
            option("--queue", default=None, help="only of this queue"),
            option("--worker", default=None, help="only of this worker, which has or had them"),
            option("--dag", default=None, help="only of this Dag"),
            option("--run", default=None, help="only of this Dag run"),
            option("--task", default=None, help="only of this task"),
            option("--map-index", type=int, default=None, help="only of this index of a mapped task; -1: of a task that is not"),
            option("--kind", default=None, choices=[kind.value for kind in JobKind], help="only of this kind"),
            option("--text", default=None, help="only with this in the Dag's, run's or task's id, in any case"),
            option("--older-than", default=None, help="only those that were queued so long ago: 90s, 30m, 4h, 2d"),
            limited(),
            output(),
            watch(),
        ),
        action("show", "show one job", show_job, job, output(), watch()),
        action("why", "say why a job waits", why_waiting, job),
        action("stop", "end a job: its task has failed then, and may be tried again", stop_job, job, reason()),
    )


@watched
def list_jobs(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.views.jobs import JobFilter

    only = JobFilter(
        state=[args.state] if args.state else [],
        queue=args.queue or "",
        worker=args.worker or "",
        dag_id=args.dag or "",
        run_id=args.run or "",
        task_id=args.task or "",
        map_index=args.map_index,
        kind=args.kind or "",
        text=args.text or "",
        older_than=span_in("--older-than", args.older_than) if args.older_than else None,
    )
    show_rows(central(args).list_jobs(only, most=limit(args)), args, COLUMNS)


@watched
def show_job(args: argparse.Namespace) -> None:
    show_row(central(args).show_job(args.id), args)


def why_waiting(args: argparse.Namespace) -> None:
    print(central(args).why_waiting(args.id))


def stop_job(args: argparse.Namespace) -> None:
    central(args).stop_job(args.id, reason=args.reason)
    print(f"{args.id}: is stopped; its task has failed, and its retries decide what comes next")
