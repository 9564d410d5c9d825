"""`airflow remote …`: enrolment tokens, workers, jobs, queues, audit. Each command: one ledger verb, and a way to print facts."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_remote_provider import compat
from airflow_remote_provider.ledger.presentable import presentable

if TYPE_CHECKING:
    import argparse


def get_remote_cli_commands() -> list[Any]:
    """Return the command tree; Airflow calls this for every `airflow …`, so it imports nothing of the ledger."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand
    from airflow_remote_protocol.states import JobState

    from airflow_remote_provider.cli_grants import grants_command
    from airflow_remote_provider.cli_trust import trust_commands

    output = Arg(("-o", "--output"), choices=("table", "json"), default="table", help="how to print")
    name = Arg(("name",), help="the worker's name")
    reason = Arg(("--reason",), default="", help="why; shown to people and in the worker's log")

    lasts = Arg(("--for",), dest="lasts", default=None, help="how long, such as 90s, 30m, 4h, 2d; else until `resume`")

    def action(name: str, text: str, func: Callable[..., None], *args: Any) -> Any:
        return ActionCommand(name=name, help=text, func=func, args=args)

    enrol = GroupCommand(
        name="enrol",
        help="enrolment tokens, with which workers join",
        subcommands=(
            action(
                "create",
                "make a token; it is shown this once",
                create_token,
                Arg(("--queues",), required=True, help="queues that the worker may serve, separated by commas"),
                Arg(("--name-pattern",), default="*", help="names that may join with it, such as 'edge-*'"),
                Arg(("--team",), default=None, help="team whose tasks the worker runs (multi-team only)"),
                Arg(("--labels",), default="", help="labels that the worker gets, such as site=kiel,gpu=yes"),
                Arg(
                    ("--bundles",),
                    default="*",
                    help="Dag bundles of whose jobs the worker may be offered, such as 'plant-*', separated by commas",
                ),
                Arg(
                    ("--networks",),
                    default="",
                    help="networks from which it may be used, such as 10.1.0.0/16, separated by commas",
                ),
                Arg(("--uses",), type=int, default=1, help="how many workers may join with it"),
                Arg(("--expires-minutes",), type=float, default=60.0, help="how long it is good for"),
                output,
            ),
            action("list", "show all tokens, without their secrets", list_tokens, output),
            action("revoke", "make a token useless", revoke_token, Arg(("id",), help="the token's id")),
        ),
    )
    workers = GroupCommand(
        name="workers",
        help="the fleet",
        subcommands=(
            action("list", "show all workers", list_workers, output),
            action("show", "show one worker", show_worker, name, output),
            action("pause", "take no new jobs; running ones go on", _wish("pause"), name, reason, lasts),
            action("resume", "take jobs again", _wish("serve"), name, reason),
            action("drain", "take no new jobs and let running ones finish, to remove it", _wish("drain"), name, reason),
            action(
                "limit",
                "bound the slots that it may fill",
                limit_slots,
                name,
                Arg(("slots",), type=int, help="most slots; -1: what the worker offers itself"),
            ),
            *trust_commands(),
            action("revoke", "end the worker's right to speak at once", revoke_worker, name),
            action("remove", "forget a worker that holds no jobs; its credential ends", remove_worker, name),
        ),
    )
    jobs = GroupCommand(
        name="jobs",
        help="jobs",
        subcommands=(
            action(
                "list",
                "show the newest jobs",
                list_jobs,
                Arg(("--state",), default=None, choices=[state.value for state in JobState], help="only in this state"),
                Arg(("--queue",), default=None, help="only of this queue"),
                Arg(("--limit",), type=int, default=100, help="at most this many"),
                output,
            ),
            action(
                "stop",
                "end a job: its task has failed then, and may be tried again",
                stop_job,
                Arg(("id",), help="the job's id"),
                reason,
            ),
            action("why", "say why a job waits", why_waiting, Arg(("id",), help="the job's id")),
        ),
    )
    queue = Arg(("name",), help="the queue's name")
    queues = GroupCommand(
        name="queues",
        help="queues: their depth and their rules",
        subcommands=(
            action("list", "show the depth of every queue, and what was set for it", list_queues, output),
            action(
                "set",
                "set rules for the jobs that a queue gets from now on",
                set_queue,
                queue,
                Arg(
                    ("--lost-after",),
                    required=True,
                    help="how long a worker may be silent before such a job is lost: seconds, or 90s, 30m, 4h, 2d",
                ),
            ),
            action("unset", "let the defaults hold again for a queue", unset_queue, queue),
        ),
    )
    audit = GroupCommand(
        name="audit",
        help="what happened that somebody may have to answer for",
        subcommands=(
            action(
                "list",
                "show the newest entries",
                list_audit,
                Arg(("--kind",), default=None, help="only of this kind, such as job-lost, replay, denied, action"),
                Arg(("--worker",), default=None, help="only of this worker"),
                Arg(("--job",), default=None, help="only about this job"),
                Arg(("--limit",), type=int, default=100, help="at most this many"),
                output,
            ),
        ),
    )
    return [
        GroupCommand(
            name="remote",
            help="Remote Executor: workers, enrolment, jobs, queues, grants, audit",
            subcommands=(enrol, workers, jobs, queues, grants_command(), audit),
        )
    ]


# Enrolment


def create_token(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli_trust import parse_labels, parse_names
    from airflow_remote_provider.ledger.credentials import LONGEST_LIFE, NewToken
    from airflow_remote_provider.ledger.credentials import create_token as create

    queues = parse_names(args.queues)
    if not queues:
        raise SystemExit("--queues names no queue; give at least one, such as --queues default")
    if args.uses < 1:
        raise SystemExit("--uses must be 1 or more")
    most = LONGEST_LIFE.total_seconds() / 60
    if not 0 < args.expires_minutes <= most:
        raise SystemExit(f"--expires-minutes must be more than 0 and at most {most:g} (a year)")
    new = NewToken(
        queues=queues,
        name_pattern=args.name_pattern,
        team=args.team,
        labels=parse_labels(args.labels),
        bundles=parse_names(args.bundles),
        networks=parse_names(args.networks),
        uses=args.uses,
        lifetime=timedelta(minutes=args.expires_minutes),
        created_by=_me(),
    )
    token, row = _ledger(create, new)
    if args.output == "json":
        print(json.dumps({"token": token, **_plain(asdict(row))}))
    else:
        print(token)
        print(
            f"\nOn the machine that joins:\n    airflow-remote-worker join <this Airflow's URL> --token {token}", file=sys.stderr
        )


def list_tokens(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import credentials

    _print(
        _ledger(credentials.list_tokens),
        args.output,
        ("id", "name_pattern", "queues", "bundles", "networks", "uses_left", "created_by", "expires_at", "revoked_at"),
    )


def revoke_token(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import credentials

    _ledger(credentials.revoke_token, args.id, by=_me())
    print(f"revoked {args.id}")


# Workers

WORKER_COLUMNS = ("name", "presence", "intent", "used_slots", "slots", "queues", "last_seen_at", "clock_off_s", "alarm")


def list_workers(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.views import workers
    from airflow_remote_provider.settings import silent_after

    _print(_pages(workers.list_workers, silent_after=silent_after()), args.output, WORKER_COLUMNS)


def show_worker(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.views import workers
    from airflow_remote_provider.settings import silent_after

    row = _plain(asdict(_ledger(workers.show_worker, args.name, silent_after=silent_after())))
    if args.output == "json":
        print(json.dumps(row))
        return
    for key, value in row.items():
        print(f"{key:15} {_cell(value)}")


def _wish(mode: str) -> Callable[[argparse.Namespace], None]:
    def wish(args: argparse.Namespace) -> None:
        from airflow_remote_protocol.messages import IntentMode

        from airflow_remote_provider.ledger import workers

        lasts = _span(args.lasts) if getattr(args, "lasts", None) else None
        _ledger(workers.set_intent, args.name, IntentMode(mode), by=_me(), reason=args.reason, lasts=lasts)
        print(f"{args.name}: {mode}{'' if lasts is None else f' for {lasts}'}")

    return wish


def _span(text: str) -> timedelta:
    from airflow_remote_provider.task_options import seconds

    try:
        return timedelta(seconds=seconds(text))
    except ValueError as error:
        raise SystemExit(f"--for {text}: {error}") from None


def limit_slots(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import workers

    slots = None if args.slots < 0 else args.slots
    _ledger(workers.limit_slots, args.name, slots, by=_me())
    print(f"{args.name}: {'no limit' if slots is None else f'at most {slots} slots'}")


def revoke_worker(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import workers

    _ledger(workers.revoke_worker, args.name, by=_me())
    print(f"revoked {args.name}")


def remove_worker(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import workers

    _ledger(workers.remove_worker, args.name, by=_me())
    print(f"removed {args.name}")


# Jobs and queues

JOB_COLUMNS = ("id", "kind", "state", "queue", "worker", "dag_id", "task_id", "map_index", "try_number", "queued_at", "reason")


def list_jobs(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.views import jobs

    only = jobs.JobFilter(state=[args.state] if args.state else [], queue=args.queue or "")
    _print(_pages(jobs.list_jobs, only=only, most=_limit(args)), args.output, JOB_COLUMNS)


QUEUE_COLUMNS = (
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
    "changed_by",
)


def stop_job(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import jobs

    _ledger(jobs.stop, args.id, by=_me(), reason=args.reason)
    print(f"{args.id}: is stopped; its task has failed, and its retries decide what comes next")


def why_waiting(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.views import waiting
    from airflow_remote_provider.settings import silent_after

    print(_ledger(waiting.why_waiting, args.id, silent_after=silent_after()))


def list_queues(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.views import queues
    from airflow_remote_provider.settings import silent_after

    _print(_ledger(queues.list_queues, silent_after=silent_after()), args.output, QUEUE_COLUMNS)


def set_queue(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import queues
    from airflow_remote_provider.task_options import lost_after_s

    try:
        seconds = lost_after_s(args.lost_after)
    except ValueError as error:
        raise SystemExit(f"--lost-after {args.lost_after}: {error}") from None
    _ledger(queues.set_queue, args.name, lost_after_s=seconds, by=_me())
    print(f"{args.name}: jobs queued from now on are lost after {timedelta(seconds=seconds)} of silence")


def unset_queue(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import queues

    _ledger(queues.unset_queue, args.name, by=_me())
    print(f"{args.name}: the defaults hold")


# Audit

AUDIT_COLUMNS = ("at", "kind", "worker", "job_id", "actor", "times", "detail")


def list_audit(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.views import audit

    only = audit.AuditFilter(kind=[args.kind] if args.kind else [], worker=args.worker or "", job_id=args.job or "")
    _print(_pages(audit.list_entries, only=only, most=_limit(args)), args.output, AUDIT_COLUMNS)


# What all commands share


def _ledger(verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    from airflow_remote_provider.ledger.errors import LedgerError

    try:
        with compat.transaction() as session:
            return verb(session, *args, **kwargs)
    except LedgerError as error:
        raise SystemExit(str(error)) from None


def _pages(view: Callable[..., Any], *, most: int | None = None, **wanted: Any) -> Any:
    """Return the rows of all pages of a view, or the first *most*."""
    from airflow_remote_provider.ledger.views.page import read_all

    return read_all(lambda page: _ledger(view, page=page, **wanted), most=most)


def _limit(args: argparse.Namespace) -> int:
    if args.limit < 1:
        raise SystemExit("--limit must be 1 or more")
    return int(args.limit)


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _plain(value: Any) -> Any:
    """Return *value* with times as ISO 8601 text, ready for JSON."""
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat(timespec="seconds")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


LONGEST_CELL = 10_000


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        text = ",".join(f"{key}={item}" for key, item in value.items()) or "-"
    else:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return presentable(text, longest=LONGEST_CELL)


def _print(rows: Sequence[Any], output: str, columns: Sequence[str]) -> None:
    """Print dataclass rows: everything as JSON, or *columns* as a table."""
    plain = [_plain(asdict(row)) for row in rows]
    if output == "json":
        print(json.dumps(plain))
        return
    cells = [[column.upper() for column in columns], *([_cell(row[column]) for column in columns] for row in plain)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
