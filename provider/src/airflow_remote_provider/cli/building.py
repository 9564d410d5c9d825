"""What the commands that build on this machine have in common: `runtimes build` and `releases add`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from airflow_remote_provider.ledger.rollouts import Kind
    from airflow_remote_provider.packing.runtimes.errors import CannotBuild
    from airflow_remote_provider.packing.scan import Limits
    from airflow_remote_provider.stores.blobs import BlobStore

SHOWN_DETAIL = 4000
"""Characters of what uv printed, from its end."""


def refuse_server(args: argparse.Namespace, command: str) -> None:
    """End a command that works with Airflow's database if a server is named."""
    if args.server or (args.server is None and os.environ.get("AIRFLOW_REMOTE_SERVER")):
        raise SystemExit(needs_database(command))


def needs_database(command: str) -> str:
    return (
        f"{command} uses Airflow's database and the packages of central; run it where Airflow is installed and configured, "
        "without --server and with AIRFLOW_REMOTE_SERVER unset"
    )


def storage() -> tuple[BlobStore, Limits]:
    """Return where this central stores blobs, and its limits."""
    from airflow_remote_provider.packing.scan import Limits
    from airflow_remote_provider.settings import settings
    from airflow_remote_provider.stores.blobs.opened import BlobStores

    options = settings()
    return BlobStores(options.blob_store).newest, Limits(options.tree_files, options.tree_bytes, options.blob_bytes)


def this_process() -> str:
    """Return the name of this process, for users."""
    return f"{socket.gethostname()} (process {os.getpid()})"


def who_builds(roll: bool) -> str:
    """Return who is noted as the one that made a serial, which decides whether its rollout has stages."""
    from airflow_remote_provider.cli.in_process import os_user
    from airflow_remote_provider.ledger.staged_rollouts import FOLLOW

    return FOLLOW if roll else os_user()


def begin_stages(kind: Kind, *, adds_only: bool) -> bool:
    """Roll out what was just made, to some workers first; return whether it is."""
    from airflow_remote_provider import compat
    from airflow_remote_provider.ledger import staged_rollouts
    from airflow_remote_provider.settings import settings

    silent_after = timedelta(seconds=settings().silent_after_seconds)
    return compat.in_transaction(partial(staged_rollouts.begin, kind=kind, adds_only=adds_only, silent_after=silent_after))


def trouble_of(failed: Mapping[str, CannotBuild]) -> str:
    """Return why platforms could not be built, as it is stored: without the addresses of package indexes."""
    from airflow_remote_provider.packing.runtimes.errors import without_addresses

    return without_addresses("; ".join(f"{platform}: {error}" for platform, error in failed.items()))


def show_failures(failed: Mapping[str, CannotBuild]) -> None:
    """Print why platforms could not be built, with what uv printed."""
    for platform, error in failed.items():
        print(f"\n{platform}: not built: {error}", file=sys.stderr)
        if error.detail:
            print("\n".join(f"    {line}" for line in error.detail[-SHOWN_DETAIL:].splitlines()), file=sys.stderr)
    sys.stderr.flush()
