"""How commands reach central: through its database, each in a transaction of its own, in the name of who is logged in here."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_remote_provider import compat

if TYPE_CHECKING:
    import argparse


def ledger(verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what the verb or view returns; what it refuses ends the command with its sentence."""
    from airflow_remote_provider.ledger.errors import LedgerError

    try:
        with compat.transaction() as session:
            return verb(session, *args, **kwargs)
    except LedgerError as error:
        raise SystemExit(str(error)) from None


def pages(view: Callable[..., Any], *, most: int | None = None, **wanted: Any) -> Any:
    """Return the rows of all pages of a view, or the first *most*."""
    from airflow_remote_provider.ledger.views.page import read_all

    return read_all(lambda page: ledger(view, page=page, **wanted), most=most)


def limit(args: argparse.Namespace) -> int:
    if args.limit < 1:
        raise SystemExit("--limit must be 1 or more")
    return int(args.limit)


def me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
