"""`airflow remote releases add`: makes a release of the worker on this machine, for each platform of the fleet."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.building import refuse_server, show_failures, storage, this_process, trouble_of
from airflow_remote_provider.cli.words import local_action, option

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from airflow_remote_provider.ledger.runtimes import Built
    from airflow_remote_provider.packing.releases import Order
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
        option("--server", metavar="URL", default=None, help="refused: this command works with Airflow's database"),
    )


def add(args: argparse.Namespace) -> None:
    refuse_server(args, "releases add")
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_remote_provider import compat
    from airflow_remote_provider.cli.in_process import os_user
    from airflow_remote_provider.faults import diagnose
    from airflow_remote_provider.ledger import releases
    from airflow_remote_provider.ledger.errors import LedgerError
    from airflow_remote_provider.packing.releases import ReleaseBuilder, plan
    from airflow_remote_provider.packing.runtimes.errors import CannotBuild

    store, limits = storage()
    try:
        order = plan(args.version, args.platform, compat.in_transaction(releases.fleet_platforms))
        builder = ReleaseBuilder(
            store,
            limits,
            who=this_process(),
            add=partial(_add, by=os_user()),
            wheels=args.wheels,
            report=partial(print, flush=True),
            environ=os.environ,
        )
        report = builder.build(order)
        compat.in_transaction(partial(releases.note_trouble, text=trouble_of(report.failed)))
    except (CannotBuild, LedgerError) as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(str(diagnose(error))) from None
    _tell(order, report)
    if report.failed:
        raise SystemExit(1)


def _add(session: Session, version: str, built: Sequence[Built], *, by: str) -> int | None:
    """Add the release; None: the newest serial has these trees already."""
    from airflow_remote_provider.ledger import releases, runtimes
    from airflow_remote_provider.ledger.assignments import WORKER
    from airflow_remote_provider.ledger.trees import RELEASE

    newest: dict[str, str] = {}
    for edition in runtimes.editions(session, WORKER, kind=RELEASE).get(WORKER, ()):  # the newest first
        newest.setdefault(edition.platform, edition.tree)
    if all(newest.get(one.platform) == one.tree for one in built):
        return None
    return releases.add(session, version, built, by=by)


def _tell(order: Order, report: Report) -> None:
    """Print what was added, and what to do next."""
    show_failures(report.failed)
    if not report.made:
        print(f"release {order.version}: nothing was built, and nothing was changed", flush=True)
    elif report.serial is None:
        print(f"release {order.version}: unchanged: the newest release has these files already", flush=True)
    else:
        print(
            f"release {order.version}: serial {report.serial} is added; workers keep what they run until you roll it out: "
            "airflow remote releases roll (--percent 10 for some of them first)",
            flush=True,
        )
