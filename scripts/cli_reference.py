"""Prints the tables of `airflow remote`, made from its command tree. Runs in the environment with Airflow, `.work/central`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home  # Airflow writes its configuration where it is imported
        from airflow_remote_provider.cli import get_remote_cli_commands

        (remote,) = get_remote_cli_commands()
        print("\n".join(_lines(remote)))


def _lines(remote: Any) -> Iterator[str]:
    parts = [(part, getattr(part, "subcommands", [part])) for part in remote.subcommands]
    groups = [(part, [(command, _options(command)) for command in commands]) for part, commands in parts]
    every = [options for group, some in groups if hasattr(group, "subcommands") for _, options in some]
    calling = [options for options in every if any("--token-file" in _spelled(option) for option in options)]
    shared = set.intersection(*({_spelled(option) for option in options} for options in calling))
    common = [option for option in calling[0] if _spelled(option) in shared]
    yield from _table(
        ("option of every command that calls central", "meaning"),
        [(_spelled(option), option.kwargs["help"]) for option in common],
    )
    for group, commands in groups:
        yield from ("", f"### `airflow remote {group.name}`", "", f"{group.help[:1].upper()}{group.help[1:]}.", "")
        rows = [(f"`{' '.join((command.name, *_places(command)))}`", command.help) for command, _ in commands]
        yield from _table(("command", "what it does"), rows)
        own = [(command.name, option) for command, options in commands for option in options if _spelled(option) not in shared]
        if own:
            yield ""
            yield from _table(("option", "of", "meaning"), _merged(own))


def _merged(own: list[tuple[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield each option once, with the names of its commands."""
    of: dict[tuple[str, str], list[str]] = {}
    for name, option in own:
        of.setdefault((_spelled(option), option.kwargs["help"]), []).append(f"`{name}`")
    for (spelled, text), names in of.items():
        yield spelled, ", ".join(names), text


def _options(command: Any) -> list[Any]:
    return [arg for arg in command.args if arg.flags[0].startswith("-")]


def _places(command: Any) -> Iterator[str]:
    for arg in command.args:
        if not arg.flags[0].startswith("-"):
            name = arg.kwargs.get("metavar", arg.flags[0].upper())
            some = f"[{name}…]" if arg.kwargs.get("nargs") == "*" else name
            yield "\\|".join(arg.kwargs["choices"]) if "choices" in arg.kwargs else some


def _spelled(option: Any) -> str:
    about = option.kwargs
    if about.get("action") in ("store_true", "store_false"):
        value = ""
    elif "choices" in about:
        value = " " + "\\|".join(about["choices"])
    else:
        value = " " + about.get("metavar", option.flags[-1].lstrip("-").replace("-", "_").upper())
    return f"`{', '.join(option.flags)}{value}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
