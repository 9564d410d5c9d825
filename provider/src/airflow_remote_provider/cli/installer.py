"""`airflow remote installer`: one file that makes a machine without a package index a worker."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.words import labels_in, local_action, names_in, option

if TYPE_CHECKING:
    import argparse

    from airflow_remote_provider.packing.archives.installer import Joining, Sent

WEEK_MINUTES = 7 * 24 * 60.0
NEEDS_DATABASE = (
    "installer uses Airflow's database and blob store; run it where Airflow is installed and configured, without --server and "
    "with AIRFLOW_REMOTE_SERVER unset"
)
LARGEST_TEXT = 1 << 18
"""Bytes of a file with certificates or a key."""


def commands() -> Any:
    return local_action(
        "installer",
        "make one file with the worker, its runtime and a token, for a machine that reaches only central",
        make,
        option("--out", metavar="FILE", required=True, help="the file to write; only you can read it: it holds a token"),
        option(
            "--platform",
            action="append",
            metavar="P",
            default=None,
            help="the machine's platform, such as cp311-linux-gnu-x86_64 (repeatable); default: this computer's",
        ),
        option("--url", default=None, help="central's address as the machine reaches it; default: [api] base_url"),
        option("--name", default=None, help="the worker's name, for which alone the token is; default: the host name"),
        option("--queues", default="default", help="queues that the worker may serve, separated by commas"),
        option("--labels", default="", help="labels that the worker gets, such as site=kiel,gpu=yes"),
        option("--slots", type=int, default=None, help="how many slots jobs may fill; default: the machine's processors"),
        option("--runtime", default="default", help="name of the runtime to include; '': none, central sends it later"),
        option("--wheels", metavar="DIR", default=None, help="directory with the worker's wheels, beside the package index"),
        option("--expires-minutes", type=float, default=WEEK_MINUTES, help="minutes until the token expires; default: a week"),
        option("--ca", metavar="FILE", default=None, help="PEM file with the authorities of central's certificate"),
        option(
            "--trust",
            action="append",
            metavar="FILE",
            default=None,
            help="public key that the worker trusts, as `join --trust` (repeatable)",
        ),
        option("--server", metavar="URL", default=None, help="refused: this command works with Airflow's database"),
        option("--insecure-http", action="store_true", help="let the worker use http without TLS to reach central"),
    )


def make(args: argparse.Namespace) -> None:
    if args.server or (args.server is None and os.environ.get("AIRFLOW_REMOTE_SERVER")):
        raise SystemExit(NEEDS_DATABASE)
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_remote_provider import compat
    from airflow_remote_provider.faults import diagnose
    from airflow_remote_provider.ledger.errors import LedgerError
    from airflow_remote_provider.packing.archives.installer import find_runtime, make_installer
    from airflow_remote_provider.packing.runtimes.errors import CannotBuild
    from airflow_remote_provider.packing.runtimes.targets import own_platform, parse
    from airflow_remote_provider.settings import settings
    from airflow_remote_provider.stores.blobs.opened import BlobStores

    out, join = Path(args.out), _joining(args)
    if not out.absolute().parent.is_dir():
        raise SystemExit(f"--out: there is no directory {out.absolute().parent}; create it, or name another file")
    try:
        platforms = list(dict.fromkeys(str(parse(text)) for text in args.platform or [str(own_platform())]))
        if others := [text for text in platforms if "-linux-" not in text]:
            raise SystemExit(f"--platform: installers are for Linux only, not for {', '.join(others)}")
        sent = compat.in_transaction(partial(find_runtime, name=args.runtime, platforms=platforms)) if args.runtime else None
        _check_runtime(args.runtime, sent)
        wheels = Path(args.wheels) if args.wheels else None
        make_installer(
            out,
            platforms,
            wheels=wheels,
            sent=sent,
            stores=BlobStores(settings().blob_store),
            join=join,
            report=partial(print, flush=True),
        )
    except (CannotBuild, LedgerError) as error:
        detail = getattr(error, "detail", "")
        raise SystemExit(f"{error}\n{detail}" if detail else str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        raise SystemExit(str(diagnose(error))) from None
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, for {', '.join(platforms)}")
    print(f"\nCopy it to the machine by a channel that you trust; run there:\n    python3 {out.name} install", file=sys.stderr)


def _joining(args: argparse.Namespace) -> Any:
    """Check what can be checked; return the function that makes the token."""
    from airflow_remote_protocol.addresses import BadAddress, parse_address

    from airflow_remote_provider.compat import base_url
    from airflow_remote_provider.ledger.credentials import LONGEST_LIFE, NewToken

    url = args.url or base_url()
    if not url:
        raise SystemExit("--url: [api] base_url is not set; name central's address as the machine reaches it")
    try:
        central, is_safe = parse_address(url)
    except BadAddress as error:
        raise SystemExit(f"--url: {error}") from None
    if not is_safe and not args.insecure_http:
        raise SystemExit(f"--url: {url} would send the worker's credential unencrypted; use https, or --insecure-http")
    queues = names_in(args.queues)
    if not queues:
        raise SystemExit("--queues names no queue; give at least one, such as --queues default")
    if args.slots is not None and args.slots < 1:
        raise SystemExit("--slots must be 1 or more")
    most = LONGEST_LIFE.total_seconds() / 60
    if not 0 < args.expires_minutes <= most:
        raise SystemExit(f"--expires-minutes must be more than 0 and at most {most:g} (a year)")
    ca = _text("--ca", args.ca) if args.ca else ""
    if args.ca and "-----BEGIN CERTIFICATE-----" not in ca:
        raise SystemExit(f"--ca: {args.ca} has no certificate; give a PEM file with the authority's certificate")
    new = NewToken(
        queues=queues,
        name_pattern=args.name or "*",
        labels=labels_in(args.labels),
        uses=1,
        lifetime=timedelta(minutes=args.expires_minutes),
    )
    trust = {Path(path).name: _text("--trust", path) for path in args.trust or ()}
    slots = {} if args.slots is None else {"slots": args.slots}
    return partial(
        _create, new, central=central, name=args.name or "", insecure_http=not is_safe, settings=slots, ca=ca, trust=trust
    )


def _create(new: Any, **joining: Any) -> Joining:
    from airflow_remote_provider.cli import in_process
    from airflow_remote_provider.cli.rest import CentralClient
    from airflow_remote_provider.packing.archives.installer import Joining

    token, row = CentralClient(in_process.connect()).create_token(new)
    return Joining(token=token, expires_at=row.expires_at, **joining)


def _check_runtime(name: str, sent: Sent | None) -> None:
    if not name:
        return
    if sent is None or not sent.trees:
        where = "there is no such runtime" if sent is None else f"it is not built for {', '.join(sent.missing)}"
        platform = "".join(f" --platform {text}" for text in (sent.missing if sent is not None else ()))
        raise SystemExit(
            f"--runtime: {name}: {where}; build it (airflow remote runtimes build {name}{platform}), or leave it out with "
            "--runtime '': central sends one later"
        )
    if sent.missing:
        raise SystemExit(
            f"--runtime: {name} is not built for {', '.join(sent.missing)}; build it: airflow remote runtimes build {name} "
            + " ".join(f"--platform {text}" for text in sent.missing)
        )


def _text(flag: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise SystemExit(f"{flag}: {path} has more than {LARGEST_TEXT} bytes; is it the right file?")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not text"
        raise SystemExit(f"{flag}: {path} can't be read: {cause}; check the path and its permissions") from None
