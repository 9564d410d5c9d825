"""`airflow remote runtimes build`: builds the environment of tasks on this machine, for each platform of the fleet."""

from __future__ import annotations

from collections.abc import Iterable
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

    from airflow_remote_provider.packing.runtimes.build import Builder, Change, Order
    from airflow_remote_provider.packing.runtimes.making import Report


def command() -> Any:
    return local_action(
        "build",
        "build a runtime from central's own versions, on a machine with access to Airflow's database",
        build,
        option("name", help="the runtime's name: `default` is that of queues that name none"),
        option("--requirements", metavar="FILE", default=None, help="packages beside Airflow's; default: as at the last build"),
        option(
            "--platform",
            action="append",
            metavar="P",
            default=None,
            help="add a platform, such as cp312-linux-gnu-x86_64 (repeatable); default: those of the workers",
        ),
        option(
            "--python",
            action="append",
            metavar="V",
            default=None,
            help="the version of Python, such as 3.12, for each of these platforms (repeatable)",
        ),
        option(
            "--env",
            action="append",
            metavar="K=V",
            default=None,
            help="a variable for the environment of tasks, no secret (repeatable); default: as at the last build",
        ),
        option("--build", action="store_true", default=None, help="build packages here that have no wheel: runs their code"),
        option("--no-build", action="store_false", dest="build", default=None, help="refuse packages that have no wheel again"),
        option("--follow", action="store_true", default=None, help="build it again when central's versions change (default)"),
        option("--no-follow", action="store_false", dest="follow", default=None, help="build it only on command"),
        option("--roll", action="store_true", help="roll it out: to some workers first, and to all when these are ready"),
        option("--server", metavar="URL", default=None, help="refused: this command works with Airflow's database"),
    )


def build(args: argparse.Namespace) -> None:
    refuse_server(args, "runtimes build")
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_remote_provider import compat
    from airflow_remote_provider.faults import diagnose
    from airflow_remote_provider.ledger import rollouts
    from airflow_remote_provider.ledger.errors import LedgerError
    from airflow_remote_provider.packing.runtimes.build import plan
    from airflow_remote_provider.packing.runtimes.errors import CannotBuild

    change = _change(args)
    try:
        order = compat.in_transaction(partial(plan, name=args.name, change=change))
        report = _builder(args.roll).build(order)
        kind = rollouts.of_runtime(order.name)
        compat.in_transaction(partial(rollouts.note_trouble, kind=kind, text=trouble_of(report.failed)))
        if args.roll and report.serial is not None:
            begin_stages(kind, adds_only=order.adds_only)
    except (CannotBuild, LedgerError) as error:
        raise SystemExit(str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(str(diagnose(error))) from None
    _tell(order, report)
    if report.failed:
        raise SystemExit(1)


def _change(args: argparse.Namespace) -> Change:
    from airflow_remote_provider.packing.runtimes.build import Change

    return Change(
        requirements=None if args.requirements is None else _read(args.requirements),
        platforms=None if args.platform is None else tuple(args.platform),
        pythons=None if args.python is None else tuple(args.python),
        env=None if args.env is None else _variables(args.env),
        follow=args.follow,
        build_sdists=args.build,
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SystemExit(f"--requirements: {path} can't be read: {cause}") from None


def _variables(texts: Iterable[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise SystemExit(f"--env {text[:50]}: write NAME=value")
        found[name] = value
    return found


def _builder(roll: bool) -> Builder:
    from airflow_remote_provider.packing.runtimes.build import Builder

    store, limits = storage()
    return Builder(store, limits, who=this_process(), by=who_builds(roll), report=partial(print, flush=True))


def _tell(order: Order, report: Report) -> None:
    """Print what was built, and what happens with it."""
    for made in report.made:
        if made.others:
            print(f"{made.platform}: other versions than on central: {', '.join(made.others)}")
    show_failures(report.failed)
    if not report.made:
        print(f"{order.name}: nothing was built, and nothing was changed", flush=True)
    elif report.serial is None:
        print(f"{order.name}: unchanged: the newest serial has these files already", flush=True)
    else:
        print(_rolled(order, report.serial), flush=True)


def _rolled(order: Order, serial: int) -> str:
    from airflow_remote_provider import compat
    from airflow_remote_provider.ledger import runtimes

    known = compat.in_transaction(partial(runtimes.get, name=order.name))
    built = f"{order.name}: serial {serial} is built"
    if known is None or known.serial == serial:
        return f"{built}, and is rolled out to {100 if known is None else known.percent} % of the workers"
    return (
        f"{built}; workers stay at serial {known.serial} until you roll it out: airflow remote runtimes roll {order.name} "
        "(--percent 10 for some of them first)"
    )
