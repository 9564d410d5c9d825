"""Reads a task's deferral (`deferred`, `awaiting_input`), and makes the body that Airflow gets in its place.

Values only: no database, no I/O. A worker's class path, arguments and `next_kwargs` stay encoded texts here. Airflow's own tables
get a placeholder instead, because its processes decode the contents of those tables. ADR 0022.
"""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_remote_provider.api.gateway.rules import NotAllowed
from airflow_remote_provider.definitions.grants.fields import connections_in
from airflow_remote_provider.placeholder_names import FAIL, ON_CENTRAL, PLACEHOLDER, RESUMED_ELSEWHERE, TRIGGER_QUEUE

MOST_BYTES = 4 * 1024 * 1024
"""Limit of the arguments of the trigger and of the method together, as JSON. They are stored, and sent to the waiting worker."""
LONGEST_NAME = 1000
"""The length of Airflow's columns for a class path and a method."""
CLASSPATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
DATE_TIME_TRIGGERS = frozenset(
    {
        "airflow.providers.standard.triggers.temporal.DateTimeTrigger",
        "airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
    }
)
"""Central's triggerer runs these: they only wait for a moment, which is rebuilt from its timestamp."""
ENCODED_MOMENTS = frozenset({"datetime.datetime", "pendulum.datetime.DateTime"})
LATEST = datetime(2200, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Wait:
    """A task's wait as its worker reported it. *kwargs* and *next_kwargs* are JSON objects that stay encoded."""

    next_method: str
    next_kwargs: str
    classpath: str | None
    """None if the task waits for a user's input, without a trigger."""
    kwargs: str
    passed_on: Mapping[str, Any]
    """The fields of the call that Airflow gets besides the placeholders: timeouts, the map index's name."""
    arguments: Mapping[str, Any]
    """The trigger's arguments, parsed but not decoded."""

    @property
    def moment(self) -> datetime | None:
        """The moment of this wait, if it waits for nothing else: central's own triggerer can wait for a moment."""
        if self.classpath not in DATE_TIME_TRIGGERS or set(self.arguments) - {"moment", "end_from_trigger"}:
            return None
        return None if self.arguments.get("end_from_trigger") not in (None, False) else _moment(self.arguments.get("moment"))


def read(said: Mapping[str, Any]) -> Wait:
    """Return the wait that the body of a `state` call describes.

    Raises:
        NotAllowed: a field is missing or has a wrong type; the text names it.
    """
    method = said.get("next_method")
    if not isinstance(method, str) or not method.isidentifier() or keyword.iskeyword(method) or len(method) > LONGEST_NAME:
        raise NotAllowed(f"next_method is {_shown(method)}; it must be the name of a method of the operator")
    next_kwargs, kwargs = said.get("next_kwargs", {}), said.get("trigger_kwargs", {})
    if not isinstance(next_kwargs, dict):
        raise NotAllowed("next_kwargs is not a JSON object")
    if not isinstance(kwargs, dict):
        raise NotAllowed("trigger_kwargs is not a JSON object; encrypted arguments are not accepted from a worker")
    classpath = said.get("classpath")
    if said["state"] == "awaiting_input":
        classpath = None
    elif not isinstance(classpath, str) or len(classpath) > LONGEST_NAME or not CLASSPATH.fullmatch(classpath):
        raise NotAllowed(f"classpath is {_shown(classpath)}; it must be the import path of the trigger's class")
    encoded, encoded_next = _json(kwargs, "trigger_kwargs"), _json(next_kwargs, "next_kwargs")
    if len(encoded) + len(encoded_next) > MOST_BYTES:
        raise NotAllowed(
            f"trigger_kwargs and next_kwargs are over the limit of {MOST_BYTES} bytes together; pass an XCom instead"
        )
    kept = {name: said[name] for name in ("trigger_timeout", "timeout", "rendered_map_index") if name in said}
    return Wait(method, encoded_next, classpath, encoded, kept, kwargs)


def for_airflow(wait: Wait, state: str) -> dict[str, Any]:
    """Return the body that Airflow gets if the trigger runs at a site, or if the wait has no trigger.

    It has none of the arguments that the worker sent. If anything but the gateway resumes the task, the task fails with a reason.
    """
    body: dict[str, Any] = {"state": state, "next_method": FAIL, "next_kwargs": RESUMED_ELSEWHERE, **wait.passed_on}
    if wait.classpath is not None:
        body |= {"classpath": PLACEHOLDER, "trigger_kwargs": {}, "queue": TRIGGER_QUEUE}
    return body


def for_triggerer(wait: Wait, state: str, *, classpath: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body that Airflow gets if central's own triggerer runs *classpath* with *kwargs*."""
    return for_airflow(wait, state) | {"classpath": classpath, "trigger_kwargs": kwargs, "queue": None}


def for_code_on_central(wait: Wait, state: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body that Airflow gets if central's triggerer runs the wait's class with these plain arguments.

    It names a class of this package, with the wait's class and arguments as data: the triggerer ends if a constructor raises.
    """
    return for_triggerer(wait, state, classpath=ON_CENTRAL, kwargs={"classpath": wait.classpath, "kwargs": arguments})


def plain_arguments(wait: Wait) -> Mapping[str, Any]:
    """Return the trigger's arguments if they are plain enough for code that runs on central.

    Raises:
        NotAllowed: there is a template, an encoded value other than a moment with a zone or a duration, or an invalid name.
    """
    for name in wait.arguments:
        # Airflow decodes the arguments as one object, which a name such as `__classname__` would change into another one.
        if not name.isidentifier() or name.startswith("__"):
            raise NotAllowed(f"trigger_kwargs holds {_shown(name)}; it must be the name of an argument")
    return {name: _plain(value, name, 0) for name, value in wait.arguments.items()}


def connections_of(wait: Wait) -> list[str]:
    """Return the connections that the trigger's arguments name."""
    try:
        return sorted(set(connections_in(wait.arguments)))
    except RecursionError:
        raise NotAllowed("trigger_kwargs is nested too deeply") from None


def resumed_answer(body: bytes, *, method: str, next_kwargs: str, event: str | None) -> bytes | None:
    """Return the answer to `run` with the method and arguments of the resumed task; None if Airflow did not resume our wait.

    *event* is encoded. If it is None, Airflow's answer has the event (central's triggerer fired, or a user answered).
    """
    answer = json.loads(body)
    stored = answer.get("next_kwargs") if isinstance(answer, dict) else None
    if not isinstance(stored, dict) or answer.get("next_method") != FAIL or stored.get("error") != RESUMED_ELSEWHERE["error"]:
        return None
    kwargs = json.loads(next_kwargs)
    if event is not None:
        kwargs["event"] = json.loads(event)
    elif "event" in stored:
        kwargs["event"] = stored["event"]
    return json.dumps(answer | {"next_method": method, "next_kwargs": kwargs}).encode()


def _moment(encoded: Any) -> datetime | None:
    """Return a moment that the Task SDK encoded, if it has a zone. The timestamp alone defines the moment."""
    if not isinstance(encoded, dict) or encoded.get("__classname__") not in ENCODED_MOMENTS:
        return None
    data = encoded.get("__data__")
    stamp, zone = (data.get("timestamp"), data.get("tz")) if isinstance(data, dict) else (None, None)
    if zone is None or isinstance(stamp, bool) or not isinstance(stamp, (int, float)):
        return None
    return datetime.fromtimestamp(stamp, timezone.utc) if 0 <= stamp <= LATEST.timestamp() else None


def _plain(value: Any, name: str, depth: int) -> Any:
    if isinstance(value, str):
        if "{{" in value or "{%" in value or "{#" in value:
            raise NotAllowed(f"trigger_kwargs[{name!r}] holds a template; code on central accepts no templates")
        return value
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if depth < MOST_DEPTH and isinstance(value, list):
        return [_plain(item, name, depth + 1) for item in value]
    if depth < MOST_DEPTH and isinstance(value, dict):
        if (at := _moment(value)) is not None:
            return _encoded_moment(at)
        if (lasts := _duration(value)) is not None:
            return {"__classname__": "datetime.timedelta", "__version__": 2, "__data__": lasts}
        if not any(key.startswith("__") for key in value):
            return {_plain(key, name, depth): _plain(item, name, depth + 1) for key, item in value.items()}
    raise NotAllowed(
        f"trigger_kwargs[{name!r}] holds an encoded value; code on central accepts texts, numbers, lists, objects, "
        "moments with a zone and durations"
    )


MOST_DEPTH = 12


def _duration(encoded: Mapping[str, Any]) -> float | None:
    data = encoded.get("__data__")
    if encoded.get("__classname__") != "datetime.timedelta" or isinstance(data, bool) or not isinstance(data, (int, float)):
        return None
    return float(data) if abs(data) <= timedelta(days=36500).total_seconds() else None


def _encoded_moment(at: datetime) -> dict[str, Any]:
    """Return *at* in the encoding of the Task SDK."""
    zone = {"__classname__": "builtins.tuple", "__version__": 1, "__data__": ["UTC", "pendulum.tz.timezone.Timezone", 1, True]}
    return {"__classname__": "datetime.datetime", "__version__": 2, "__data__": {"timestamp": at.timestamp(), "tz": zone}}


def date_time_arguments(at: datetime) -> dict[str, Any]:
    """Return the arguments of a `DateTimeTrigger` for *at*."""
    return {"moment": _encoded_moment(at), "end_from_trigger": False}


DATE_TIME_TRIGGER = "airflow.providers.standard.triggers.temporal.DateTimeTrigger"


def _json(value: Any, name: str) -> str:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        raise NotAllowed(f"{name} holds a number that is not finite, or is nested too deeply") from None


def _shown(value: Any) -> str:
    return repr(value)[:100]
