"""Makes the tables of the configuration reference from the code that reads the configuration."""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from airflow_remote_protocol.task_settings import OPTIONS as TASK_SETTINGS
from airflow_remote_provider.api.gateway.rules import CALLBACKS, TABLE, TASKS, TASKS_AND_CALLBACKS, TESTS
from airflow_remote_provider.metrics import TABLE as METRICS
from airflow_remote_provider.settings import OPTIONS, SWITCHES, TEXT_OPTIONS, Settings
from airflow_remote_worker import cli, config
from airflow_remote_worker.config import ENV_PREFIX, Config

DESCRIBED_DEFAULTS = {"os.cpu_count() or 1": "the number of processors"}
"""Defaults that differ between computers → their description."""
KINDS = {"Path": "path", "float": "number", "int": "whole number", "str": "text", "bool": "true or false"}


def central_options() -> str:
    """Return the table of all options of `[remote]`."""
    whole = {name for name, kind in Settings.__annotations__.items() if kind == "int"}
    rows = [
        (f"`{name}`", _number(option.default), f"{_number(option.least)} to {_number(option.most)}", option.text)
        for name, option in OPTIONS.items()
    ]
    rows += [(f"`{name}`", f"`{switch.default}`", "`True` or `False`", switch.text) for name, switch in SWITCHES.items()]
    texts = TEXT_OPTIONS.items()
    rows += [(f"`{name}`", f"`{option.default}`" if option.default else "", "text", option.text) for name, option in texts]
    missing = set(Settings.__annotations__) - {name.strip("`") for name, *_ in rows}
    if missing:
        raise SystemExit(f"settings.py: {', '.join(sorted(missing))}: in no table of options, which the reference is made of")
    table = _table(("option", "default", "allowed", "meaning"), rows)
    return f"{table}\n\nWhole numbers: {', '.join(f'`{name}`' for name in OPTIONS if name in whole)}."


def task_settings() -> str:
    """Return the table of the settings of central's Airflow that tasks at a site receive."""
    rows = [(f"`[{name.partition('.')[0]}] {name.partition('.')[2]}`", option.why) for name, option in TASK_SETTINGS.items()]
    return _table(("option", "what it decides for a task"), rows)


def grant_rules() -> str:
    """Return the table of the routes of the Execution API and the grants that a job needs to call them."""
    described = {TASKS: "tasks", TASKS_AND_CALLBACKS: "tasks, callbacks", CALLBACKS: "callbacks", TESTS: "connection tests"}
    rows = [(f"`{method} {path}`", described.get(rule.kinds, "all"), rule.text) for method, path, rule in TABLE]
    return _table(("call", "jobs", "needs"), rows)


def metrics() -> str:
    """Return the table of all metrics that central sends."""
    rows = [
        (f"`{name}`", metric.kind.value, f"`{metric.tag}`" if metric.tag else "", metric.text) for name, metric in METRICS.items()
    ]
    return _table(("metric", "kind", "tag", "meaning"), rows)


def worker_settings() -> str:
    """Return the table of all settings of the worker, with their key, environment variable and flag."""
    flags = _flags_by_dest()
    rows = []
    for key, annotation, default, text in _settings(Config):
        variable = ENV_PREFIX + key.replace("<NAME>", "*NAME*").replace(".", "__").upper()
        if key == "state":
            variable, default = ENV_PREFIX + "HOME", "`~/.local/share/airflow-remote-worker`"
        flag = flags.get(key.replace(".", "_")) or (flags.get("bundle") if key.startswith("bundles.") else None)
        rows.append((f"`{key}`", f"`{variable}`", f"`{flag}`" if flag else "", annotation, default, text))
    return _table(("key in `worker.toml`", "environment variable", "flag", "kind", "default", "meaning"), rows)


def worker_commands() -> str:
    """Return the tables of all commands of `airflow-remote-worker` and their options."""
    parser = cli._parser()
    commands = _subparsers(parser)
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    shared = set.intersection(*({_spell(action) for action in _options(command)} for command in commands.choices.values()))
    parts = [_table(("option of every command", "meaning"), _option_rows(commands.choices["check"], only=shared))]
    for name, command in commands.choices.items():
        parts.append(f"### `airflow-remote-worker {name}`\n\n{helps[name][:1].upper()}{helps[name][1:]}.")
        if rows := list(_option_rows(command, without=shared)):
            parts.append(_table(("option", "meaning"), rows))
    return "\n\n".join(parts)


def _settings(section: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield (key, kind, default, meaning), sections flattened."""
    (tree,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(tree, ast.ClassDef)
    for at, statement in enumerate(tree.body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        key, annotation = prefix + statement.target.id, ast.unparse(statement.annotation)
        inner = annotation.removeprefix("dict[str, ").rstrip("]") if annotation.startswith("dict") else annotation
        nested = getattr(config, inner, None)
        if inspect.isclass(nested) and issubclass(nested, config.Section):
            yield from _settings(nested, f"{key}.<NAME>." if annotation.startswith("dict") else f"{key}.")
            continue
        follows = tree.body[at + 1] if at + 1 < len(tree.body) else None
        text = ""
        if isinstance(follows, ast.Expr) and isinstance(follows.value, ast.Constant) and isinstance(follows.value.value, str):
            text = " ".join(inspect.cleandoc(follows.value.value).split())
        if not text:
            raise SystemExit(f"config.py: {section.__name__}.{statement.target.id} has no docstring; the reference needs it")
        if annotation.startswith("dict"):
            yield f"{key}.<NAME>", "text", "", text
        else:
            yield key, _kind(annotation), _default(statement.value), text


def _kind(annotation: str) -> str:
    if annotation.partition(" |")[0] == "Positive":
        return "number above 0"
    if annotation == "tuple[str, ...]":
        return "list of texts"
    if annotation.startswith("Literal["):
        words = [word for word in ast.literal_eval(annotation.removeprefix("Literal")) if word]
        return " or ".join(f"`{word}`" for word in words)
    core = annotation.removeprefix("Annotated[").partition(",")[0].partition(" |")[0].rstrip("]")
    return KINDS[core]


def _default(value: ast.expr | None) -> str:
    if value is None:
        return ""
    text = ast.unparse(value)
    if isinstance(value, ast.Tuple):
        text = ast.unparse(ast.List(value.elts))
    if text in ("None", "''"):
        return ""
    return DESCRIBED_DEFAULTS.get(text, f"`{text.lower() if text in ('True', 'False') else text}`")


def _number(value: float) -> str:
    return f"{value:g}" if value < 1e6 else f"{int(value)}"


# The command line


def _subparsers(parser: argparse.ArgumentParser) -> Any:
    return next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _options(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in command._actions if not isinstance(action, argparse._HelpAction)]


def _flags_by_dest() -> dict[str, str]:
    found: dict[str, str] = {}
    for command in _subparsers(cli._parser()).choices.values():
        for action in _options(command):
            if action.option_strings and command.prog.split()[-1] in ("join", "run"):
                found[action.dest] = action.option_strings[-1]
    return found


def _spell(action: argparse.Action) -> str:
    if not action.option_strings:
        return "|".join(action.choices) if action.choices else f"<{action.dest}>"
    takes_value = action.nargs != 0
    return action.option_strings[-1] + (f" {action.metavar or action.dest.upper()}" if takes_value else "")


def _option_rows(
    command: argparse.ArgumentParser, *, only: set[str] | None = None, without: Iterable[str] = ()
) -> Iterator[tuple[str, str]]:
    for action in _options(command):
        spelled = _spell(action)
        if spelled not in without and (only is None or spelled in only):
            text = (action.help or "").replace("|", "\\|")
            yield f"`{spelled}`".replace("|", "\\|"), text


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
