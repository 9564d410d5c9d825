"""The names by which tasks select our executor."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


def executor_names(executor: Any) -> frozenset[str | None]:
    """Return the names of *executor* in task instances: alias, class, path; and None if it is its team's default."""
    from airflow.executors.executor_loader import ExecutorLoader

    name = executor.name
    names: set[str | None] = {type(executor).__name__}
    if name is not None:
        names |= {text for text in (name.alias, name.module_path) if text}
        if ExecutorLoader.get_default_executor_name(executor.team_name) == name:
            names.add(None)
    return frozenset(names)


@cache
def names_of_subclasses(path: str) -> frozenset[str | None]:
    """Return the names by which tasks select the executor at *path* or a subclass; and None if it is the default of a team."""
    from airflow.executors.executor_loader import ExecutorLoader

    names: set[str | None] = set()
    teams: set[str | None] = set()
    for name in ExecutorLoader.get_executor_names(validate_teams=False):
        is_default = name.team_name not in teams
        teams.add(name.team_name)
        if name.module_path == path or _is_derived(name.module_path, path):
            names |= {text for text in (name.alias, name.module_path, name.module_path.rpartition(".")[2]) if text}
            names |= {None} if is_default else set()
    return frozenset(names)


def _is_derived(executor: str, path: str) -> bool:
    if executor.startswith("airflow."):  # not worth the import
        return False
    try:
        return issubclass(_class_at(executor), _class_at(path))
    except (ImportError, AttributeError):  # another executor, only installed in the scheduler's environment
        return False


def _class_at(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]
