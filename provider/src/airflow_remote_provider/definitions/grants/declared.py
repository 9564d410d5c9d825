"""What a task's author declares: `executor_config={"remote": {"connections": ["plant_*"], …}}`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_remote_provider.definitions.grants import DECLARED, Grant, GrantKind, named

SECTION = "remote"
"""The key in `executor_config` that is ours."""
NOTED = "remote_inferred"
"""The key in `executor_config` where :mod:`..policies` notes what it inferred from the task when its Dag file was parsed."""
OF_FILE = "of_file"
"""The key there of what its Dag file reads when it is loaded."""

OTHER_KEYS = frozenset({"lost_after", "labels"})
"""Keys of the same section that have nothing to do with grants."""


class BadDeclaration(ValueError):
    """`executor_config["remote"]` can't be read; the text names the key, what is wrong with it and what is right."""


def declared(executor_config: object) -> Grant:
    """Return what *executor_config* declares.

    Raises:
        BadDeclaration: a key that nobody knows, or a value that is no list of names.
    """
    section = executor_config.get(SECTION) if isinstance(executor_config, Mapping) else None
    if section is None:
        return Grant()
    if not isinstance(section, Mapping):
        raise BadDeclaration(f'executor_config["{SECTION}"] is {_a(section)}; it must be a dict such as {EXAMPLE}')
    for key in section:
        if key not in OTHER_KEYS and key not in {kind.value for kind in DECLARED}:
            raise BadDeclaration(_unknown(key))
    return Grant({kind: _names(kind, section[kind.value]) for kind in DECLARED if section.get(kind.value) is not None})


def noted(executor_config: object) -> Grant:
    """Return what was inferred from the task, and from its file, when the Dag file was parsed."""
    section = executor_config.get(NOTED) if isinstance(executor_config, Mapping) else None
    return _as_noted(section) | noted_of_file(executor_config)


def noted_of_file(executor_config: object) -> Grant:
    """Return what whatever loads the task's Dag file reads by that, as it was noted with the task."""
    section = executor_config.get(NOTED) if isinstance(executor_config, Mapping) else None
    return _as_noted(section.get(OF_FILE)) if isinstance(section, Mapping) else Grant()


def _as_noted(section: object) -> Grant:
    return named({kind: section.get(kind.value, ()) for kind in DECLARED}) if isinstance(section, Mapping) else Grant()


def spell(names: Mapping[GrantKind, Iterable[str]]) -> str:
    """Return the `executor_config` that declares *names*, to be pasted into a Dag."""
    kinds = ", ".join(f'"{kind.value}": {_listed(names[kind])}' for kind in DECLARED if names.get(kind))
    return f'executor_config={{"{SECTION}": {{{kinds}}}}}'


EXAMPLE = '{"connections": ["plant_*"], "variables": ["threshold"]}'


def _names(kind: GrantKind, value: object) -> frozenset[str]:
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(name, str) and name for name in value):
        return frozenset(value)
    what = f'executor_config["{SECTION}"]["{kind.value}"]'
    raise BadDeclaration(f'{what} is {_a(value)}; it must be a list of names or globs, such as ["plant_*"]')


def _unknown(key: Any) -> str:
    known = sorted({*OTHER_KEYS, *(kind.value for kind in DECLARED)})
    near = difflib.get_close_matches(str(key), known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f'executor_config["{SECTION}"] has the key {key!r}, which means nothing{meant} Known are: {", ".join(known)}'


def _listed(names: Iterable[str]) -> str:
    return "[" + ", ".join('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in sorted(set(names))) + "]"


def _a(value: object) -> str:
    return f"a {type(value).__name__} ({value!r:.60})"
