"""`airflow remote jobs …`: list, explain and stop jobs."""

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
        "what runs, what waits, and why",
        action(
            "list",
            "list jobs, newest first",
            list_jobs,
            option("--state", default=None, choices=[state.value for state in JobState], help="filter by state"),
            option("--queue", default=None, help="filter by queue"),
            option("--worker", default=None, help="filter by worker, the job's current or last one"),
            option("--dag", default=None, help="filter by the Dag's id"),
            option("--run", default=None, help="filter by the Dag run's id"),
            option("--task", default=None, help="filter by the task's id"),
            option("--map-index", type=int, default=None, help="filter by map index; -1: of tasks that are not mapped"),
            option("--kind", default=None, choices=[kind.value for kind in JobKind], help="filter by kind"),
            option("--text", default=None, help="filter by text in the Dag's, run's or task's id, ignoring case"),
            option("--older-than", default=None, help="filter by age: queued at least this long ago, such as 90s, 30m, 4h, 2d"),
            limited(),
            output(),
            watch(),
        ),
        action("show", "show one job", show_job, job, output(), watch()),
        action("why", "show why a job waits", why_waiting, job),
        action("stop", "stop a job; its task fails, and may be retried", stop_job, job, reason()),
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
    print(f"{args.id}: stopped; its task has failed, and its retries decide what comes next")
