"""`airflow remote …`: one file per group of commands. A command calls central and prints the answer.

Airflow builds the command tree for every `airflow …`: these modules import no ledger and no API until a command runs.
"""

from __future__ import annotations

from typing import Any


def get_remote_cli_commands() -> list[Any]:
    """Return the command tree."""
    from airflow.cli.cli_config import GroupCommand

    from airflow_remote_provider.cli import (
        alerts,
        audit,
        bundles,
        enrol,
        grants,
        installer,
        jobs,
        publish,
        queues,
        releases,
        runtimes,
        sign,
        workers,
    )

    parts = (enrol, installer, workers, jobs, queues, bundles, publish, runtimes, releases, sign, grants, alerts, audit)
    return [
        GroupCommand(
            name="remote",
            help="Remote Executor: workers, enrolment, jobs, queues, bundles, runtimes, releases, grants, incidents, audit",
            subcommands=tuple(part.commands() for part in parts),
        )
    ]
