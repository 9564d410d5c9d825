"""Output: as a table for users, as JSON or YAML for programs; once, or repeatedly."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.words import CentralUnavailable, option
from airflow_remote_provider.ledger.presentable import presentable

if TYPE_CHECKING:
    import argparse

    from airflow_remote_provider.ledger.statements import SignedStatement

LONGEST_CELL = 10_000
SIGNED = ("tree", "name", "version", "serial", "keys", "signed_at", "expires_at", "has_expired")
SHOWN_OF_KEY = 16
"""Digits of a key's id, as in a worker's refusals."""
CLEAR = "\033[2J\033[H"
"""Clears a terminal."""


def output() -> Any:
    return option("-o", "--output", choices=("table", "json", "yaml"), default="table", help="output format")


def watch() -> Any:
    return option("--watch", type=float, metavar="SECONDS", default=None, help="repeat at this interval, until Ctrl-C")


def watched(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Repeat a command if `--watch` is given. After a first success it goes on while central is unavailable."""

    @functools.wraps(command)
    def run(args: argparse.Namespace) -> None:
        every_s = getattr(args, "watch", None)
        if every_s is None:
            return command(args)
        if not every_s >= 0.1:
            raise SystemExit("--watch must be 0.1 or more")
        try:
            _once(command, args)
            while True:
                time.sleep(every_s)
                try:
                    _once(command, args)
                except CentralUnavailable as error:
                    print(error, file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            return None

    return run


def _once(command: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    print(CLEAR if sys.stdout.isatty() else "", end="")
    command(args)
    sys.stdout.flush()


def show_rows(rows: Sequence[Any], args: argparse.Namespace, columns: Sequence[str]) -> None:
    """Print dataclass rows: *columns* as a table, or everything as JSON or YAML."""
    plain = [asdict(row) for row in rows]
    if args.output != "table":
        print(_dumped(_plain(plain), args.output))
        return
    show_table(plain, columns)


def show_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print one row a line."""
    cells = [[column.upper() for column in columns], *([_cell(_plain(row[column])) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show_signed(statements: Sequence[SignedStatement]) -> None:
    """Print who has signed the trees that a command shows."""
    if not statements:
        return
    print("\nsigned:")
    rows = [{**asdict(one), "tree": one.tree[:12], "keys": [key[:SHOWN_OF_KEY] for key in one.key_ids]} for one in statements]
    show_table(rows, SIGNED)


def show_row(row: Any, args: argparse.Namespace) -> None:
    """Print one dataclass row: one field a line, or as JSON or YAML."""
    show_facts(_plain(asdict(row)), args)


def show_facts(facts: dict[str, Any], args: argparse.Namespace) -> None:
    facts = _plain(facts)
    if args.output != "table":
        print(_dumped(facts, args.output))
        return
    for key, value in facts.items():
        print(f"{key:15} {_cell(value)}")


def _dumped(plain: Any, how: str) -> str:
    if how == "json":
        return json.dumps(plain)
    import yaml

    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)).rstrip()


def _plain(value: Any) -> Any:
    """Return *value* with times as ISO 8601 text, ready for JSON."""
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat(timespec="seconds")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        text = ",".join(f"{key}={item}" for key, item in value.items()) or "-"
    else:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return presentable(text, longest=LONGEST_CELL)
