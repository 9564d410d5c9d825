"""`airflow remote grants …`: what jobs may access, what they asked for, and what their Dags should declare."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.central import central, limit
from airflow_remote_provider.cli.printing import output, show_facts, show_rows, watch, watched
from airflow_remote_provider.cli.words import action, group, limited, option

if TYPE_CHECKING:
    import argparse

    from airflow_remote_provider.cli.rest import Globs
    from airflow_remote_provider.ledger.queue_policy import PolicyRow


def commands() -> Any:
    from airflow_remote_provider.definitions.grants import GrantKind

    queue = option("queue", help="the queue; '*': all queues")
    kinds = [
        option(f"--{kind.value.replace('_', '-')}", action="append", default=[], metavar="GLOB", help=MEANINGS[kind.value])
        for kind in GrantKind
    ]
    return group(
        "grants",
        "what jobs may access beyond what their tasks name and declare",
        action("list", "list the policies of all queues", list_policies, output(), watch()),
        action("allow", "allow every job of a queue to use these names", allow, queue, *kinds),
        action("deny", "remove names that `allow` has added", deny, queue, *kinds),
        action(
            "mode",
            "deny what is not granted (enforce), or allow and record it (audit)",
            set_mode,
            queue,
            option("mode", choices=("enforce", "audit"), help="what is done with requests that are not granted"),
        ),
        action(
            "asked",
            "list the secrets that jobs read, and what was denied or only recorded; newest first",
            list_accesses,
            option("--dag", default=None, help="filter by the Dag's id"),
            option("--ungranted", action="store_true", help="only what was not granted"),
            limited(),
            output(),
            watch(),
        ),
        action(
            "suggest",
            "print, for each task, the executor_config that grants what its jobs asked for and were not granted",
            suggest,
            option("dag", help="the Dag's id"),
            output(),
        ),
    )


MEANINGS = {
    "connections": "connections to read (may be given several times)",
    "variables": "variables to read",
    "writes": "variables to set and delete",
    "xcoms_of": "Dags whose XComs to read, of any run",
    "dags": "Dags whose runs to query",
    "trigger_dags": "Dags whose runs to trigger and clear",
    "assets": "assets (names or URIs) and aliases to read: definition, events, state",
    "asset_writes": "assets and aliases to emit events for, and whose state to set and delete",
    "code_on_central": "trigger classes (`package.module.Name`, no glob) that central's triggerer runs instead of a worker",
}


@watched
def list_policies(args: argparse.Namespace) -> None:
    from airflow_remote_provider.definitions.grants import GrantKind

    columns = ("queue", "mode", *(kind.value for kind in GrantKind), "changed_by")
    show_rows(central(args).list_policies(), args, columns)


def allow(args: argparse.Namespace) -> None:
    _change(args, central(args).allow)


def deny(args: argparse.Namespace) -> None:
    _change(args, central(args).deny)


def _change(args: argparse.Namespace, verb: Callable[[str, Globs], PolicyRow]) -> None:
    from airflow_remote_provider.definitions.grants import GrantKind

    globs = {kind: getattr(args, kind.value) for kind in GrantKind if getattr(args, kind.value)}
    if not globs:
        options = ", ".join(f"--{kind.value.replace('_', '-')}" for kind in GrantKind)
        raise SystemExit(f"name at least one of {options}")
    row = verb(args.queue, globs)
    for kind in globs:
        print(f"{row.queue}: {kind.value}: {', '.join(getattr(row, kind.value)) or 'none'}")


def set_mode(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.queue_policy import Mode

    row = central(args).set_mode(args.queue, Mode(args.mode))
    print(f"{row.queue}: {row.mode}")


@watched
def list_accesses(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.grants import Answer
    from airflow_remote_provider.ledger.views.accesses import AccessFilter

    answers = (Answer.DENIED.value, Answer.AUDITED.value) if args.ungranted else ()
    only = AccessFilter(dag_id=args.dag or "", answers=answers)
    rows = central(args).list_accesses(only, most=limit(args))
    show_rows(rows, args, ("at", "answer", "kind", "name", "worker", "queue", "dag_id", "task_id", "map_index", "try_number"))


def suggest(args: argparse.Namespace) -> None:
    from airflow_remote_provider.definitions.grants.declared import spell

    tasks = central(args).suggest(args.dag)
    if args.output != "table":
        show_facts({task: {kind.value: names for kind, names in kinds.items()} for task, kinds in tasks.items()}, args)
    elif not tasks:
        print(f"jobs of the Dag {args.dag!r} asked for nothing that is not granted to its tasks now")
    for task, kinds in tasks.items() if args.output == "table" else ():
        print(f"{task}:\n    {spell(kinds)}")
