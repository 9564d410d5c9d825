"""Recognises fields by their names whose values are names of connections or Dags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

CONNECTION_FIELD = re.compile(r"(.*_)?conn_ids?")
DAG_FIELD = re.compile(r".*_dag_ids?")
"""`trigger_dag_id`, `external_dag_id`; not `dag_id`, which is the task's own."""
TRIGGERED_DAG_FIELD = re.compile(r"(.*_)?trigger_dag_ids?")
"""The fields among these that name a Dag to trigger: `trigger_dag_id` of TriggerDagRunOperator."""
DEEPEST = 12
"""How many levels of dicts, lists and objects are searched; no one writes more by hand."""


def texts(value: Any) -> Iterator[str]:
    """Yield the texts in a field: one, or a list of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from (item for item in value if isinstance(item, str))


def connections_in(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the connections that JSON names, at any depth.

    Raises:
        RecursionError: the value is nested deeper than anyone would write it.
    """
    if depth > DEEPEST * 4:
        raise RecursionError
    if isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(name, str) and CONNECTION_FIELD.fullmatch(name):
                yield from filter(None, texts(item))
            yield from connections_in(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from connections_in(item, depth + 1)
