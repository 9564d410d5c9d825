"""`airflow remote audit …`: security events, lost jobs, and what operators did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.central import central, limit
from airflow_remote_provider.cli.printing import output, show_rows, watch, watched
from airflow_remote_provider.cli.words import action, group, limited, option

if TYPE_CHECKING:
    import argparse

COLUMNS = ("at", "kind", "worker", "job_id", "actor", "times", "detail")


def commands() -> Any:
    return group(
        "audit",
        "security events, lost jobs, and what operators did",
        action(
            "list",
            "list the newest entries",
            list_audit,
            option("--kind", default=None, help="filter by kind, such as job-lost, replay, denied, action"),
            option("--worker", default=None, help="filter by worker"),
            option("--job", default=None, help="filter by the job's id"),
            limited(),
            output(),
            watch(),
        ),
    )


@watched
def list_audit(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.views.audit import AuditFilter

    only = AuditFilter(kind=[args.kind] if args.kind else [], worker=args.worker or "", job_id=args.job or "")
    show_rows(central(args).list_entries(only, most=limit(args)), args, COLUMNS)
