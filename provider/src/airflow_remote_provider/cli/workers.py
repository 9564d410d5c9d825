"""`airflow remote workers …`: the fleet, the settings of each worker, and their intent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_remote_protocol.presence import Presence

from airflow_remote_provider.cli.central import central, limit
from airflow_remote_provider.cli.history import history, show_series
from airflow_remote_provider.cli.printing import output, show_row, show_rows, watch, watched
from airflow_remote_provider.cli.words import action, confirm, group, labels_in, limited, names_in, option, reason, span_in, yes

if TYPE_CHECKING:
    import argparse

LEVELS = ("debug", "info", "warning", "error", "critical")
FOLLOWED_EVERY_S = 1.0
INTENTS = ("serve", "pause", "drain", "leave")
COLUMNS = ("name", "presence", "intent", "used_slots", "slots", "queues", "last_seen_at", "clock_off_s", "unfit", "alarm")


def commands() -> Any:
    name = option("name", help="the worker's name")
    lasts = option("--for", dest="lasts", default=None, help="how long, such as 90s, 30m, 4h, 2d; default: until `resume`")
    return group(
        "workers",
        "state, settings and intent of the workers",
        action(
            "list",
            "list all workers",
            list_workers,
            option("--text", default="", help="filter by text in the name or host name, ignoring case"),
            option(
                "--presence",
                default=None,
                choices=[presence.value for presence in Presence],
                help="filter by presence",
            ),
            option("--intent", default=None, choices=INTENTS, help="filter by intent"),
            option("--queue", default="", help="filter by a queue that the worker may serve"),
            option("--label", default="", help="filter by label, such as site=kiel"),
            option("--version", default="", help="filter by version"),
            option(
                "--flagged",
                action="store_true",
                help="only workers that have an alarm, are suspended, or can't host tasks",
            ),
            output(),
            watch(),
        ),
        action("summary", "count workers and jobs, and list the queues that no worker serves", summarize, output(), watch()),
        history("workers", "of the fleet, or of the workers that are named", show_history),
        action("show", "show one worker", show_worker, name, output(), watch()),
        action("pause", "take no new jobs; running jobs continue", set_intent("pause"), name, reason(), lasts),
        action("resume", "take jobs again", set_intent("serve"), name, reason()),
        action(
            "drain",
            "take no new jobs and let running jobs finish, before the worker is removed",
            set_intent("drain"),
            name,
            reason(),
        ),
        action(
            "limit",
            "limit the slots that it may use",
            limit_slots,
            name,
            option("slots", type=int, help="most slots; -1: no limit, as many as the worker offers"),
        ),
        action(
            "queues",
            "replace the queues that it may serve",
            set_queues,
            name,
            option("queues", help="queues, separated by commas"),
        ),
        action(
            "labels",
            "replace its labels",
            set_labels,
            name,
            option("labels", help="labels such as site=kiel,gpu=yes; '': no labels"),
        ),
        action(
            "bundles",
            "replace the Dag bundles whose jobs it may be offered",
            set_bundles,
            name,
            option("bundles", help="names or globs, separated by commas; '*': any"),
        ),
        action(
            "log",
            "show its own log",
            show_log,
            name,
            option("--follow", action="store_true", help="keep printing new lines, until Ctrl-C"),
            option("--contains", default="", help="filter by text in the line, ignoring case"),
            option("--level", default="debug", choices=LEVELS, help="filter by level: this one and more severe ones"),
            limited("show at most this many lines, up to 1000"),
        ),
        action("rotate", "make it replace its credential now", rotate, name),
        action("restart", "restart its daemon; its jobs continue", restart, name, reason()),
        action(
            "update",
            "update its software to the newest release now, whatever the share of the rollout; its jobs continue",
            update,
            option("names", nargs="+", help="names of workers"),
        ),
        action("rebind", "bind it to another client certificate: that of its next session", rebind, name),
        action(
            "suspend", "refuse its requests until `unsuspend`; its jobs continue until they are lost", suspend, name, reason()
        ),
        action("unsuspend", "accept the requests of a suspended worker again, and clear its alarm", unsuspend, name),
        action("acknowledge", "clear its alarm, once it has been investigated", acknowledge, name),
        action("revoke", "revoke its credential; its requests are refused at once", revoke_worker, name),
        action("remove", "remove a worker that holds no jobs; its credential ends", remove_worker, name, yes()),
    )


@watched
def list_workers(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.views.workers import WorkerFilter

    labels = list(labels_in(args.label).items())
    if len(labels) > 1:
        raise SystemExit("--label takes one label; leave the others out")
    only = WorkerFilter(
        text=args.text,
        presence=[args.presence] if args.presence else [],
        intent=[args.intent] if args.intent else [],
        queue=args.queue,
        label=labels[0] if labels else None,
        version=args.version,
        flagged=args.flagged,
    )
    show_rows(central(args).list_workers(only), args, COLUMNS)


@watched
def summarize(args: argparse.Namespace) -> None:
    show_row(central(args).summarize(), args)


@watched
def show_history(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.history import SeriesKind

    show_series(args, SeriesKind.WORKER if args.names else SeriesKind.FLEET)


@watched
def show_worker(args: argparse.Namespace) -> None:
    show_row(central(args).show_worker(args.name), args)


def set_intent(mode: str) -> Callable[[argparse.Namespace], None]:
    def set_mode(args: argparse.Namespace) -> None:
        from airflow_remote_protocol.messages import IntentMode

        lasts = span_in("--for", args.lasts) if getattr(args, "lasts", None) else None
        central(args).set_intent(args.name, IntentMode(mode), reason=args.reason, lasts=lasts)
        print(f"{args.name}: {mode}{'' if lasts is None else f' for {lasts}'}")

    return set_mode


def limit_slots(args: argparse.Namespace) -> None:
    slots = None if args.slots < 0 else args.slots
    central(args).limit_slots(args.name, slots)
    print(f"{args.name}: {'no limit' if slots is None else f'at most {slots} slots'}")


def set_queues(args: argparse.Namespace) -> None:
    queues = names_in(args.queues)
    central(args).set_queues(args.name, queues)
    print(f"{args.name}: serves {', '.join(queues)}")


def set_labels(args: argparse.Namespace) -> None:
    labels = labels_in(args.labels)
    central(args).set_labels(args.name, labels)
    print(f"{args.name}: {', '.join(f'{key}={value}' for key, value in labels.items()) or 'no labels'}")


def set_bundles(args: argparse.Namespace) -> None:
    bundles = names_in(args.bundles)
    central(args).set_bundles(args.name, bundles)
    print(f"{args.name}: may be offered jobs of {', '.join(bundles)}")


def show_log(args: argparse.Namespace) -> None:
    from airflow_remote_provider.stores.worker_log_lines import as_text

    after = None
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            lines = central(args).read_log(args.name, most=limit(args), after=after, contains=args.contains, level=args.level)
            for line in lines.items:
                print(as_text(line), flush=True)
            if not args.follow:
                return
            after = lines.next
            if not lines.more:
                time.sleep(FOLLOWED_EVERY_S)


def rotate(args: argparse.Namespace) -> None:
    central(args).rotate(args.name)
    print(f"{args.name}: replaces its credential as soon as it is notified")


def restart(args: argparse.Namespace) -> None:
    central(args).restart(args.name, reason=args.reason)
    print(f"{args.name}: restarts as soon as it is notified; its jobs continue")


def update(args: argparse.Namespace) -> None:
    for name in args.names:
        central(args).update_worker(name)
        print(f"{name}: fetches the newest release, tests it and restarts with it; its jobs continue")


def rebind(args: argparse.Namespace) -> None:
    central(args).rebind(args.name)
    print(f"{args.name}: is bound to the client certificate of its next session")


def suspend(args: argparse.Namespace) -> None:
    central(args).suspend(args.name, reason=args.reason)
    print(f"{args.name}: suspended; its jobs continue until they are lost")


def unsuspend(args: argparse.Namespace) -> None:
    central(args).unsuspend(args.name)
    print(f"{args.name}: its requests are accepted again")


def acknowledge(args: argparse.Namespace) -> None:
    central(args).acknowledge(args.name)
    print(f"{args.name}: its alarm is cleared")


def revoke_worker(args: argparse.Namespace) -> None:
    central(args).revoke_worker(args.name)
    print(f"revoked {args.name}")


def remove_worker(args: argparse.Namespace) -> None:
    if not args.yes:
        worker = central(args).show_worker(args.name)
        if worker.presence == Presence.ONLINE:
            confirm(f"worker {args.name} is online; once removed, its requests are refused, and it must join again")
    central(args).remove_worker(args.name)
    print(f"removed {args.name}")
