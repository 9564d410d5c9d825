"""Reads the grants that a task's author declares: `executor_config={"remote": {"connections": ["plant_*"], …}}`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_remote_provider.definitions.grants import DECLARED, Grant, GrantKind, named

SECTION = "remote"
"""Our key in `executor_config`."""
NOTED = "remote_inferred"
"""The key in `executor_config` under which :mod:`..policies` notes the names that it inferred when the Dag file was parsed."""
OF_FILE = "of_file"
"""The key in that note for the names that the Dag file reads when it is loaded."""

OTHER_KEYS = frozenset({"lost_after", "labels"})
"""Keys of the same section that are not about grants."""


class BadDeclaration(ValueError):
    """`executor_config["remote"]` is not valid; the text names the key, the cause and the remedy."""


def declared(executor_config: object) -> Grant:
    """Return the grant that *executor_config* declares.

    Raises:
        BadDeclaration: a key is unknown, or a value is not a list of names.
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
    """Return the grant that was inferred from the task and its file when the Dag file was parsed."""
    section = executor_config.get(NOTED) if isinstance(executor_config, Mapping) else None
    return _as_noted(section) | noted_of_file(executor_config)


def noted_of_file(executor_config: object) -> Grant:
    """Return the grant for the names that loading the task's Dag file reads, as noted with the task."""
    section = executor_config.get(NOTED) if isinstance(executor_config, Mapping) else None
    return _as_noted(section.get(OF_FILE)) if isinstance(section, Mapping) else Grant()


def _as_noted(section: object) -> Grant:
    return named({kind: section.get(kind.value, ()) for kind in DECLARED}) if isinstance(section, Mapping) else Grant()


def spell(names: Mapping[GrantKind, Iterable[str]]) -> str:
    """Return the source text of the `executor_config` that declares *names*, to be pasted into a Dag."""
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
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f'executor_config["{SECTION}"] has the unknown key {key!r}{meant} Known keys: {", ".join(known)}'


def _listed(names: Iterable[str]) -> str:
    return "[" + ", ".join('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in sorted(set(names))) + "]"


def _a(value: object) -> str:
    return f"a {type(value).__name__} ({value!r:.60})"
