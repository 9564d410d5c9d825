"""Which central a command calls: a server that options or the environment name, or the one whose database is at hand here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from airflow_remote_provider.cli.rest import CentralClient


def central(args: argparse.Namespace) -> CentralClient:
    """Return the client that *args* and the environment name. Every turn of a `--watch` uses the same one."""
    if "central" not in args:
        args.central = _connect(args)
    found: CentralClient = args.central
    return found


def _connect(args: argparse.Namespace) -> CentralClient:
    from airflow_remote_provider.cli.server import named_server

    server = named_server(args)
    if server is None:
        from airflow_remote_provider.dashboard import explain_missing

        missing = explain_missing()
        if missing is not None:
            print(f"airflow remote: {missing}", file=sys.stderr)
    from airflow_remote_provider.cli.rest import CentralClient

    if server is None:
        from airflow_remote_provider.cli import in_process

        return CentralClient(in_process.connect())
    from airflow_remote_provider.cli import client

    return CentralClient(client.connect(server))


def limit(args: argparse.Namespace) -> int:
    if args.limit < 1:
        raise SystemExit("--limit must be 1 or more")
    return int(args.limit)
