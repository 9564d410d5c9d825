"""What users type: options that several commands share, and values that are lists, labels or durations."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

LONGEST_LABEL = 100


class CentralUnavailable(SystemExit):
    """Central does not answer now, and may in a moment. Ends a command like any SystemExit, but not a `--watch`."""


def action(name: str, text: str, func: Callable[..., None], *args: Any) -> Any:
    from airflow.cli.cli_config import ActionCommand

    return ActionCommand(name=name, help=text, func=_explained(func), args=(*args, *_server_options()))


def local_action(name: str, text: str, func: Callable[..., None], *args: Any) -> Any:
    """As :func:`action`, for a command that works on this machine and with Airflow's database, and never calls a server."""
    from airflow.cli.cli_config import ActionCommand

    return ActionCommand(name=name, help=text, func=_explained(func), args=args)


def _explained(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command that reads an invalid setting end with that sentence, not with a traceback."""

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
    return option("--reason", default="", help="the reason, shown to users and in the worker's log")


def yes() -> Any:
    return option("--yes", action="store_true", help="do not ask for confirmation")


def confirm(what: str) -> None:
    """Ask whether to continue; end the command unless the answer is yes. *what* describes the effect."""
    if not sys.stdin.isatty():
        raise SystemExit(f"{what}; to confirm, add --yes")
    print(f"{what}. Continue? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SystemExit("nothing was changed")


def limited(text: str = "show at most this many") -> Any:
    return option("--limit", type=int, default=100, help=text)


def _server_options() -> tuple[Any, ...]:
    """Return the options of every command: which server, and with which token."""
    return (
        option(
            "--server",
            metavar="URL",
            default=None,
            help="Airflow's address, to use its REST API and not the database; default: $AIRFLOW_REMOTE_SERVER; '': the database",
        ),
        option(
            "--token-file",
            metavar="FILE",
            default=None,
            help="file with your token for that Airflow, or - for stdin; default: the token in $AIRFLOW_REMOTE_TOKEN",
        ),
        option(
            "--ca",
            metavar="FILE",
            default=None,
            help="PEM file with the certificate authorities to trust instead of the system's; default: $AIRFLOW_REMOTE_CA",
        ),
        option("--insecure-http", action="store_true", help="allow http without TLS to another machine"),
    )


def names_in(text: str) -> list[str]:
    """Return the names in `a, b,…`."""
    return [name.strip() for name in text.split(",") if name.strip()]


def labels_in(text: str) -> dict[str, str]:
    """Return the labels in `key=value,…`; end the command if *text* is anything else."""
    labels = {}
    for pair in names_in(text):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key or not value or max(len(key), len(value)) > LONGEST_LABEL:
            raise SystemExit(f"{pair[:50]!r} is not a label; write key=value, each of at most {LONGEST_LABEL} characters")
        labels[key] = value
    return labels


def span_in(flag: str, text: str) -> timedelta:
    """Return the duration in `90s`, `30m`, `4h`, `2d`; end the command if *text* is anything else."""
    from airflow_remote_provider.definitions.task_options import seconds

    try:
        return timedelta(seconds=seconds(text))
    except ValueError as error:
        raise SystemExit(f"{flag} {text}: {error}") from None
