"""`airflow remote grants …`: what jobs may read besides their own, what they asked for, and what their Dags should declare."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def grants_command() -> Any:
    """Return the command group; like :mod:`.cli`, it imports nothing of the ledger."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    from airflow_remote_provider.grants import Kind

    output = Arg(("-o", "--output"), choices=("table", "json"), default="table", help="how to print")
    queue = Arg(("queue",), help="the queue; '*' is all of them")
    kinds = [
        Arg((f"--{kind.value.replace('_', '-')}",), action="append", default=[], metavar="GLOB", help=MEANINGS[kind.value])
        for kind in Kind
    ]

    def action(name: str, text: str, func: Callable[..., None], *args: Any) -> Any:
        return ActionCommand(name=name, help=text, func=func, args=args)

    return GroupCommand(
        name="grants",
        help="what jobs may read besides what their tasks name and declare",
        subcommands=(
            action("list", "show the policies of all queues", list_policies, output),
            action("allow", "let every job of a queue use these names", allow, queue, *kinds),
            action("deny", "take back what `allow` gave", deny, queue, *kinds),
            action(
                "mode",
                "deny what is not granted (enforce), or let it through and record it (audit)",
                set_mode,
                queue,
                Arg(("mode",), choices=("enforce", "audit"), help="what becomes of it"),
            ),
            action(
                "asked",
                "show the secrets that jobs read, and all that was denied or only audited; newest first",
                list_accesses,
                Arg(("--dag",), default=None, help="only jobs of this Dag"),
                Arg(("--ungranted",), action="store_true", help="only what nothing granted"),
                Arg(("--limit",), type=int, default=100, help="at most this many"),
                output,
            ),
            action(
                "suggest",
                "print, by task, the executor_config that grants what its jobs asked for in vain",
                suggest,
                Arg(("dag",), help="the Dag's id"),
                output,
            ),
        ),
    )


MEANINGS = {
    "connections": "connections to read (may be given several times)",
    "variables": "variables to read",
    "writes": "variables to set and delete",
    "xcoms_of": "Dags of any of whose runs XComs may be read",
    "dags": "Dags about whose runs to ask, and which to trigger",
    "assets": "assets (names or URIs) and aliases",
    "triggers": "trigger classes (`package.module.Name`) to defer to, besides those of installed providers",
}


def list_policies(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _print
    from airflow_remote_provider.grants import Kind
    from airflow_remote_provider.ledger import queue_policy

    columns = ("queue", "mode", *(kind.value for kind in Kind), "changed_by")
    _print(_ledger(queue_policy.list_policies), args.output, columns)


def allow(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import queue_policy

    _change(queue_policy.allow, args)


def deny(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger import queue_policy

    _change(queue_policy.deny, args)


def _change(verb: Callable[..., Any], args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.grants import Kind

    globs = {kind: getattr(args, kind.value) for kind in Kind if getattr(args, kind.value)}
    if not globs:
        options = ", ".join(f"--{kind.value.replace('_', '-')}" for kind in Kind)
        raise SystemExit(f"name something: at least one of {options}")
    row = _ledger(verb, args.queue, globs, by=_me())
    for kind in globs:
        print(f"{row.queue}: {kind.value}: {', '.join(getattr(row, kind.value)) or 'none'}")


def set_mode(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger, _me
    from airflow_remote_provider.ledger import queue_policy
    from airflow_remote_provider.ledger.queue_policy import Mode

    row = _ledger(queue_policy.set_mode, args.queue, Mode(args.mode), by=_me())
    print(f"{row.queue}: {row.mode}")


def list_accesses(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _limit, _pages, _print
    from airflow_remote_provider.ledger.grants import Answer
    from airflow_remote_provider.ledger.views import accesses

    answers = (Answer.DENIED.value, Answer.AUDITED.value) if args.ungranted else ()
    only = accesses.AccessFilter(dag_id=args.dag or "", answers=answers)
    rows = _pages(accesses.list_accesses, only=only, most=_limit(args))
    _print(rows, args.output, ("at", "answer", "kind", "name", "worker", "queue", "dag_id", "task_id", "map_index", "try_number"))


def suggest(args: argparse.Namespace) -> None:
    from airflow_remote_provider.cli import _ledger
    from airflow_remote_provider.grants.declared import spell
    from airflow_remote_provider.ledger import grants

    tasks = _ledger(grants.suggest, args.dag)
    if args.output == "json":
        print(json.dumps({task: {kind.value: names for kind, names in kinds.items()} for task, kinds in tasks.items()}))
    elif not tasks:
        print(f"jobs of the Dag {args.dag!r} asked for nothing that is not granted to its tasks now")
    for task, kinds in tasks.items() if args.output == "table" else ():
        print(f"{task}:\n    {spell(kinds)}")
