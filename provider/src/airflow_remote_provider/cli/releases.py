"""`airflow remote releases …`: the releases of the worker's own software that central sends, and their rollout."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli import add_release
from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.printing import output, show_facts, show_row, show_rows, show_signed, show_table, watch, watched
from airflow_remote_provider.cli.rolling import roll_options, roll_with, short
from airflow_remote_provider.cli.words import action, group

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from airflow_remote_provider.ledger.views.releases import ReleasesSummary

EDITIONS = ("serial", "version", "platform", "tree", "files", "bytes", "published_at", "running")
WORKERS = ("worker", "platform", "runs", "is_installed", "serial", "version", "phase", "detail")


def commands() -> Any:
    return group(
        "releases",
        "releases of the worker's own software that central sends: what was added, and which worker runs what",
        add_release.command(),
        action("list", "list all releases", list_releases, output(), watch()),
        action("show", "show the rollout, all releases, and what each worker runs", show, output(), watch()),
        action(
            "roll",
            "roll the newest release out to all workers or to a share of them; halt or resume the rollout; roll back",
            roll,
            *roll_options(),
        ),
    )


@watched
def list_releases(args: argparse.Namespace) -> None:
    show_rows([*central(args).show_releases().editions], args, EDITIONS)


@watched
def show(args: argparse.Namespace) -> None:
    found = central(args).show_releases()
    if args.output != "table":
        show_row(found, args)
        return
    show_facts(asdict(found.about), args)
    for title, columns, rows in (("editions", EDITIONS, found.editions), ("workers", WORKERS, found.workers)):
        if rows:
            print(f"\n{title}:")
            show_table([short(asdict(row)) for row in rows], columns)
    show_signed(found.statements)


def roll(args: argparse.Namespace) -> None:
    found = central(args)

    def begin(percent: int, labels: Mapping[str, str], to: int | None) -> ReleasesSummary:
        return found.roll_release(percent=percent, labels=labels, to=to)

    about = roll_with(args, begin, halt=lambda: found.halt_release(reason=args.reason), resume=found.resume_release)
    print(f"the worker's releases: {_rollout(about)}. {about.running} of {about.workers} worker(s) run theirs")


def _rollout(about: ReleasesSummary) -> str:
    named = f"serial {about.serial} ({about.version})"
    before = f"are to have serial {about.previous}" if about.previous else "keep what they run"
    if about.halted:
        return f"{named} is halted ({about.halted}); workers without it {before}"
    labels = f" with {', '.join(f'{key}={value}' for key, value in sorted(about.labels.items()))}" if about.labels else ""
    whom = "all workers" if about.percent == 100 else f"{about.percent} % of the workers"
    others = f"; the others {before}" if labels or about.percent < 100 else ""
    return f"{named} is rolled out to {whom}{labels}{others}"
