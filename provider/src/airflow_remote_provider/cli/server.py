"""Which server a command calls, and with which token: options and environment, checked."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_remote_protocol.addresses import BadAddress, parse_address

if TYPE_CHECKING:
    import argparse

SERVER, TOKEN, CA = "AIRFLOW_REMOTE_SERVER", "AIRFLOW_REMOTE_TOKEN", "AIRFLOW_REMOTE_CA"


@dataclass(frozen=True)
class Server:
    """A server whose REST API is called. Its `repr` leaves out the token."""

    url: str
    """Of Airflow itself, without a slash at its end."""
    token: str = field(repr=False)
    source: str
    """Where the token came from, for messages."""
    ca: str | None = None
    """PEM file with the authorities to trust instead of the usual ones."""


def named_server(args: argparse.Namespace) -> Server | None:
    """Return the server that *args* and the environment name; None: there is no such name, the database is used."""
    url = os.environ.get(SERVER, "") if args.server is None else args.server
    if not url:
        given = {"--token-file": args.token_file, "--ca": args.ca, "--insecure-http": args.insecure_http}
        for flag in (flag for flag, value in given.items() if value):
            raise SystemExit(f"{flag}: no server is named; name one with --server or ${SERVER}, or omit it")
        return None
    url = _checked(url, insecure_http=args.insecure_http)
    token, source = _token(args.token_file)
    return Server(url, token, source, args.ca or os.environ.get(CA) or None)


def _checked(url: str, *, insecure_http: bool) -> str:
    try:
        checked, is_safe = parse_address(url)
    except BadAddress as error:
        raise SystemExit(f"--server: {error}") from None
    if not is_safe and not insecure_http:
        raise SystemExit(
            f"--server: {url} would send your token unencrypted; use https, or --insecure-http if that network is yours"
        )
    if not is_safe:
        print(f"NOT ENCRYPTED: anyone on the network path to {url} can read your token and use it; use https", file=sys.stderr)
    return checked


def _token(file: str | None) -> tuple[str, str]:
    """Return the user's token, and where it came from."""
    if file == "-":
        token, source = sys.stdin.readline().strip(), "the first line of stdin"
    elif file:
        try:
            token, source = Path(file).read_text(encoding="utf-8").strip(), file
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or "it is not text"
            raise SystemExit(f"--token-file: {file} can't be read: {cause}; check the path and its permissions") from None
    else:
        token, source = os.environ.get(TOKEN, "").strip(), f"${TOKEN}"
    if not token:
        raise SystemExit(
            f"{source} holds no token; put a token of Airflow's there (POST /auth/token returns one), or use --token-file"
        )
    if not all("!" <= char <= "~" for char in token):
        raise SystemExit(f"{source} holds text with spaces or special characters, which is not a token; put only the token there")
    return token, source
