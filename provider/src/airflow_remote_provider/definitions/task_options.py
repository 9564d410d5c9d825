"""What a task asks of the Remote Executor: `executor_config={"remote": {...}}`, parsed. Also the durations that people write.

Its grants are read by :mod:`.grants.declared`. Only central reads any of it: Airflow does not send `executor_config` on.
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
"""A worker must hear of central, and central write down that it heard, several times within."""
MOST_LOST_AFTER_S = 7 * 86400.0

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class BadTaskOption(ValueError):
    """A task asks for what can't be given; the text names the option, the cause and the remedy."""


@dataclass(frozen=True)
class TaskOptions:
    """The options, each with what holds if the task says nothing."""

    lost_after_s: float | None = None
    """None: as its queue or the deployment says."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the worker must have."""


def parse(executor_config: Any) -> TaskOptions:
    """Return what *executor_config* says under `remote`; other executors' keys are theirs.

    Raises:
        BadTaskOption: an unknown option, or a value that can't be used.
    """
    try:
        declared(executor_config)
    except BadDeclaration as error:
        raise BadTaskOption(str(error)) from None
    said = executor_config.get(SECTION) if isinstance(executor_config, Mapping) else None
    if not said:
        return TaskOptions()
    return TaskOptions(_option(said, "lost_after", lost_after_s), _option(said, "labels", needed_labels) or {})


def _option(said: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> T | None:
    wanted = said.get(name)
    if wanted is None:
        return None
    try:
        return read(wanted)
    except ValueError as error:
        raise BadTaskOption(f"executor_config['remote'][{name!r}] = {wanted!r:.200}: {error}") from None


def needed_labels(said: Any) -> dict[str, str]:
    """Return the labels that a task needs.

    Raises:
        ValueError: no labels, or too long; the text says what to write.
    """
    if not isinstance(said, Mapping) or not all(isinstance(part, str) and part for pair in said.items() for part in pair):
        raise ValueError('it is no dict of texts; write labels as {"site": "kiel", "gpu": "yes"}')
    labels = dict(said)
    if len(encode_labels(labels) or "") > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters, as JSON; name fewer labels")
    return labels


def seconds(said: Any) -> float:
    """Return a duration that people wrote, in seconds: a number of them, or text such as `90s`, `30m`, `2h`, `1.5d`.

    Raises:
        ValueError: no duration; the text says what to write.
    """
    if isinstance(said, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", said)):
        return float(found[1]) * UNITS[found[2]]
    if isinstance(said, (int, float)) and not isinstance(said, bool):
        return float(said)
    raise ValueError("it is no duration; write seconds, or text such as '90s', '30m', '2h' or '1.5d'")


def lost_after_s(said: Any) -> float:
    """Return a `lost_after` in seconds: a number of them, or text such as `90s`, `30m`, `2h`, `1.5d`.

    Raises:
        ValueError: no duration, or out of range; the text says what to write.
    """
    value = seconds(said)
    if not LEAST_LOST_AFTER_S <= value <= MOST_LOST_AFTER_S:
        raise ValueError(
            f"it is out of range; allowed is from {LEAST_LOST_AFTER_S:g} seconds to {MOST_LOST_AFTER_S / 86400:g} days"
        )
    return value
