"""`airflow remote releases add`: makes a release of the worker on this machine, for each platform of the fleet."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.building import (
    begin_stages,
    refuse_server,
    show_failures,
    storage,
    this_process,
    trouble_of,
    who_builds,
)
from airflow_remote_provider.cli.words import local_action, option

if TYPE_CHECKING:
    import argparse

    from airflow_remote_provider.packing.releases import Order, ReleaseBuilder
    from airflow_remote_provider.packing.runtimes.making import Report


def command() -> Any:
    return local_action(
        "add",
        "add a release of the worker's software, on a machine with access to Airflow's database",
        add,
        option("version", nargs="?", default=None, help="the version, such as 0.2.0; default: that of this provider"),
        option("--wheels", type=Path, metavar="DIR", default=None, help="a directory with wheels, used beside the package index"),
        option(
            "--platform",
            action="append",
            metavar="P",
            default=None,
            help="a platform, such as cp312-linux-gnu-x86_64 (repeatable); default: those of the workers",
        ),
        option(
            "--follow",
            action="store_true",
            default=None,
            help="add and roll out that of a newer provider by itself (default)",
        ),
        option("--no-follow", action="store_false", dest="follow", default=None, help="add releases only on command"),
        option("--roll", action="store_true", help="roll it out: to some workers first, and to all when these run it"),
        option("--server", metavar="URL", default=None, help="refused: this command works with Airflow's database"),
    )


def add(args: argparse.Namespace) -> None:
    refuse_server(args, "releases add")
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_remote_provider import compat
    from airflow_remote_provider.faults import diagnose
    from airflow_remote_provider.ledger import releases, rollouts
    from airflow_remote_provider.ledger.errors import LedgerError
    from airflow_remote_provider.packing.releases import plan
    from airflow_remote_provider.packing.runtimes.errors import CannotBuild

    is_rolled = False
    try:
        fleet, known = compat.in_transaction(lambda session: (releases.fleet_platforms(session), releases.get(session)))
        order = plan(args.version, args.platform, fleet, known)
        report = _builder(args).build(order)
        compat.in_transaction(partial(rollouts.note_trouble, kind=rollouts.RELEASES, text=trouble_of(report.failed)))
        if args.roll and report.serial is not None:
            is_rolled = begin_stages(rollouts.RELEASES, adds_only=order.adds_only)
    except (CannotBuild, LedgerError) as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(str(diagnose(error))) from None
    _tell(order, report, is_rolled=is_rolled)
    if report.failed:
        raise SystemExit(1)


def _builder(args: argparse.Namespace) -> ReleaseBuilder:
    from airflow_remote_provider.ledger import releases
    from airflow_remote_provider.packing.releases import ReleaseBuilder

    store, limits = storage()
    return ReleaseBuilder(
        store,
        limits,
        who=this_process(),
        add=partial(releases.add, by=who_builds(args.roll), follow=args.follow),
        wheels=args.wheels,
        report=partial(print, flush=True),
        environ=os.environ,
    )


def _tell(order: Order, report: Report, *, is_rolled: bool) -> None:
    """Print what was added, and what to do next."""
    show_failures(report.failed)
    if not report.made:
        print(f"release {order.version}: nothing was built, and nothing was changed", flush=True)
    elif report.serial is None:
        print(f"release {order.version}: unchanged: the newest release has these files already", flush=True)
    elif is_rolled:
        print(f"release {order.version}: serial {report.serial} is added, and is rolled out to some workers first", flush=True)
    else:
        print(
            f"release {order.version}: serial {report.serial} is added; workers keep what they run until you roll it out: "
            "airflow remote releases roll (--percent 10 for some of them first)",
            flush=True,
        )
