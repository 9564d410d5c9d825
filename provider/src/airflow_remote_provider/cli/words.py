"""What people type: options that several commands have, and texts that are lists, labels or durations."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

LONGEST_LABEL = 100


class CentralUnavailable(SystemExit):
    """Central does not answer now, and may in a moment. Ends a command, as any SystemExit; not one that watches."""


def action(name: str, text: str, func: Callable[..., None], *args: Any) -> Any:
    from airflow.cli.cli_config import ActionCommand

    return ActionCommand(name=name, help=text, func=_with_reason(func), args=(*args, *_way()))


def _with_reason(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command that meets a bad option end with that sentence, not with a traceback."""

    @functools.wraps(command)
    def run(args: Any) -> None:
        from airflow_remote_provider.settings import BadSetting

        try:
            command(args)
        except BadSetting as error:
            raise SystemExit(f"{error}. Correct it in Airflow's configuration") from None

    return run


def group(name: str, text: str, *commands: Any) -> Any:
    from airflow.cli.cli_config import GroupCommand

    return GroupCommand(name=name, help=text, subcommands=commands)


def option(*flags: str, **how: Any) -> Any:
    from airflow.cli.cli_config import Arg

    return Arg(flags, **how)


def reason() -> Any:
    return option("--reason", default="", help="why; shown to people and in the worker's log")


def yes() -> Any:
    return option("--yes", action="store_true", help="don't ask")


def insist(what: str) -> None:
    """Ask whether to go on; end the command unless the answer is yes. *what* says what that does."""
    if not sys.stdin.isatty():
        raise SystemExit(f"{what}; if that is meant, add --yes")
    print(f"{what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SystemExit("nothing was changed")


def limited() -> Any:
    return option("--limit", type=int, default=100, help="at most this many")


def _way() -> tuple[Any, ...]:
    """Which central, and as whom: what every command takes."""
    return (
        option(
            "--server",
            metavar="URL",
            default=None,
            help="Airflow's address, to go by its API, not its database; default: $AIRFLOW_REMOTE_SERVER; '': the database",
        ),
        option(
            "--token-file",
            metavar="FILE",
            default=None,
            help="file with one's token for that Airflow, or - for stdin; default: the token in $AIRFLOW_REMOTE_TOKEN",
        ),
        option(
            "--ca",
            metavar="FILE",
            default=None,
            help="PEM file with the authorities to trust instead of the usual ones; default: $AIRFLOW_REMOTE_CA",
        ),
        option("--insecure-http", action="store_true", help="allow plain http beyond this machine"),
    )


def names_in(text: str) -> list[str]:
    """Return the names in `a, b,…`."""
    return [name.strip() for name in text.split(",") if name.strip()]


def labels_in(text: str) -> dict[str, str]:
    """Return the labels in `key=value,…`; ends the command if it is something else."""
    labels = {}
    for pair in names_in(text):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key or not value or max(len(key), len(value)) > LONGEST_LABEL:
            raise SystemExit(f"{pair[:50]!r} is no label; write key=value, each of at most {LONGEST_LABEL} characters")
        labels[key] = value
    return labels


def span_in(flag: str, text: str) -> timedelta:
    """Return the duration in `90s`, `30m`, `4h`, `2d`; ends the command if it is something else."""
    from airflow_remote_provider.definitions.task_options import seconds

    try:
        return timedelta(seconds=seconds(text))
    except ValueError as error:
        raise SystemExit(f"{flag} {text}: {error}") from None
