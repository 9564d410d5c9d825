"""Parses the options of a task, `executor_config={"remote": {...}}`, and durations that users write.

:mod:`.grants.declared` reads its grants. Only central reads `executor_config`: Airflow does not send it to workers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_remote_provider.definitions.grants.declared import SECTION, BadDeclaration, declared
from airflow_remote_provider.definitions.needs import LONGEST, encode_labels

T = TypeVar("T")

LEAST_LOST_AFTER_S = 30.0
"""Within this time, a worker must reach central several times, and central must store these contacts."""
MOST_LOST_AFTER_S = 7 * 86400.0

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class BadTaskOption(ValueError):
    """An option of a task is not valid; the text names the option, the cause and the remedy."""


@dataclass(frozen=True)
class TaskOptions:
    """The options, each with its default."""

    lost_after_s: float | None = None
    """None: the setting of its queue or of the deployment applies."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that the worker must have."""


def parse(executor_config: Any) -> TaskOptions:
    """Return the options in *executor_config* under `remote`; keys of other executors are ignored.

    Raises:
        BadTaskOption: an option is unknown, or its value is not valid.
    """
    try:
        declared(executor_config)
    except BadDeclaration as error:
        raise BadTaskOption(str(error)) from None
    options = executor_config.get(SECTION) if isinstance(executor_config, Mapping) else None
    if not options:
        return TaskOptions()
    return TaskOptions(_option(options, "lost_after", lost_after_s), _option(options, "labels", needed_labels) or {})


def _option(options: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> T | None:
    wanted = options.get(name)
    if wanted is None:
        return None
    try:
        return read(wanted)
    except ValueError as error:
        raise BadTaskOption(f"executor_config['remote'][{name!r}] = {wanted!r:.200}: {error}") from None


def needed_labels(value: Any) -> dict[str, str]:
    """Return the labels that a task needs.

    Raises:
        ValueError: *value* is not a dict of labels, or is too long; the text says what to write.
    """
    if not isinstance(value, Mapping) or not all(isinstance(part, str) and part for pair in value.items() for part in pair):
        raise ValueError('it is not a dict of strings; write labels as {"site": "kiel", "gpu": "yes"}')
    labels = dict(value)
    if len(encode_labels(labels) or "") > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters, as JSON; name fewer labels")
    return labels


def seconds(value: Any) -> float:
    """Return a duration that a user wrote, in seconds: a number of seconds, or text such as `90s`, `30m`, `2h`, `1.5d`.

    Raises:
        ValueError: *value* is not a duration; the text says what to write.
    """
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", value)):
        return float(found[1]) * UNITS[found[2]]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError("it is not a duration; write seconds, or text such as '90s', '30m', '2h' or '1.5d'")


def lost_after_s(value: Any) -> float:
    """Return a `lost_after` in seconds: a number of seconds, or text such as `90s`, `30m`, `2h`, `1.5d`.

    Raises:
        ValueError: *value* is not a duration, or out of range; the text says what to write.
    """
    duration_s = seconds(value)
    if not LEAST_LOST_AFTER_S <= duration_s <= MOST_LOST_AFTER_S:
        raise ValueError(f"it is out of range; write {LEAST_LOST_AFTER_S:g} seconds to {MOST_LOST_AFTER_S / 86400:g} days")
    return duration_s
