"""Bounds of the values in a job's call: which values its body, query and path may have for central to pass it on to Airflow.

Both ends check: central before it passes a call on, and a job's process before it stores a write for later, because a refusal
after an outage can no longer be raised in the task.

Airflow's Execution API checks types, not ranges. A date in the year 9999, a number of 64 bits or a NUL character causes an error
500 with a traceback there. A delay of 1e300 s or NaN gets into the database, and every later read fails. This module defines the
ranges, with one type for each body. Central's table of rules says which route has which body.

A field that a type does not name is refused: a newer Airflow may give it a meaning that no rule bounds. All fields are optional
here, because Airflow itself checks which ones a call must have.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_INT = 2**31 - 1
"""Airflow stores numbers in INTEGER columns, which have 32 bits on Postgres and MySQL."""
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=timezone.utc), datetime(2100, 1, 1, tzinfo=timezone.utc)
"""Range of the dates that a task reports: when it started and ended, when to try again, when a stored value expires."""
EARLIEST_LOGICAL, LATEST_LOGICAL = datetime(1900, 1, 1, tzinfo=timezone.utc), datetime(2200, 1, 1, tzinfo=timezone.utc)
"""Range of logical dates: some Dags process data of the last century."""
MAX_RETRY_DELAY_S = 366 * 86400.0
"""A year. Airflow's own `max_retry_delay` is a day by default."""
MAX_TIMEOUT = timedelta(days=10 * 366)
"""How long a task may wait for a trigger or for a user."""
MAX_JSON_DEPTH = 100
"""Levels. MySQL stores no deeper JSON document."""
MAX_SKIPPED = 5000
"""Tasks in one call. A condition on 20,000 of them exceeds the stack of Postgres, and Airflow answers 500."""

Id = Annotated[str, Meta(max_length=250)]
"""Airflow's `ID_LEN`."""
Name = Annotated[str, Meta(max_length=1000)]
"""For columns with names of hosts, users, methods and classes, and for notes."""
AssetName = Annotated[str, Meta(max_length=1500)]
"""Columns `asset.name` and `asset.uri`."""
EventAssetName = Annotated[str, Meta(min_length=1, max_length=1500, pattern=r"^[\x20-\x7e]+$")]
"""Airflow creates an asset with this name. ASCII, as its SDK requires."""
Text = Annotated[str, Meta(max_length=65_535)]
"""MySQL's TEXT."""
MapIndex = Annotated[int, Meta(ge=-1, le=MAX_INT)]
Pid = Annotated[int, Meta(ge=0, le=MAX_INT)]
Moment = Annotated[datetime, Meta(tz=True)]
Duration = str | int | float


NEWEST_API_VERSION = "2026-10-30"
"""Version of the Execution API in Airflow 3.4. Routes, parameters and fields of later versions have no rule here."""
OLDEST_API_VERSION = "2026-04-06"
"""Version of the Execution API. For older ones Airflow decodes the `next_kwargs` of a resumed task in the API server."""
API_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
ENCODED = frozenset({"__classname__", "__data__", "__version__", "__type", "__var"})
"""Keys by which Airflow recognises an encoded object."""


class OutOfBounds(Exception):
    """A value must not be passed on to the Execution API; the text names the value and its bound."""


class NoRule(OutOfBounds):
    """There is no rule for a parameter or a field: a newer release may have one."""


NO_RULE_HINT = (
    f"this version of airflow-provider-remote knows the Execution API up to {NEWEST_API_VERSION}; "
    "install the provider's version for central's Airflow"
)
"""The end of the error text about a route, a parameter or a field without a rule."""


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The values that one body may have. Checks the range of dates itself, because msgspec has no constraint for it."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, datetime):
                _check_moment(name, value, earliest=EARLIEST, latest=LATEST)


class Run(Body):
    state: Id | UnsetType = UNSET
    hostname: Name | UnsetType = UNSET
    unixname: Name | UnsetType = UNSET
    pid: Pid | UnsetType = UNSET
    start_date: Moment | UnsetType = UNSET


class Heartbeat(Body):
    hostname: Name | UnsetType = UNSET
    pid: Pid | UnsetType = UNSET


class Outlet(Body):
    type: Name
    name: AssetName | None = None
    uri: AssetName | None = None


class AssetKey(Body):
    """Airflow passes all of its fields on as keyword arguments, so no others are allowed."""

    name: EventAssetName
    uri: EventAssetName


class OutletEvent(Body):
    dest_asset_key: AssetKey
    extra: dict[str, Any]
    dest_asset_extra: dict[str, Any] | UnsetType = UNSET
    source_alias_name: EventAssetName | UnsetType = UNSET
    partition_key: Annotated[str, Meta(min_length=1, max_length=250)] | None = None


class LoopDecision(Body):
    """Whether a loop of tasks ends, and why. Airflow accepts it only from the task that decides on a loop."""

    stop: bool
    reason: Text | None = None


class State(Body):
    """A state that a task reports. Airflow checks which fields belong to which state.

    Airflow 3.4 accepts `hostname` and `pid` with the state `server_terminated`. They are not allowed here: Airflow would store
    them with any state, and its UI requests logs from that host name.
    """

    state: Id | UnsetType = UNSET
    end_date: Moment | UnsetType = UNSET
    reschedule_date: Moment | UnsetType = UNSET
    rendered_map_index: Id | UnsetType | None = UNSET
    task_outlets: list[Outlet] = []
    outlet_events: list[OutletEvent] = []
    retry_delay_seconds: Annotated[float, Meta(ge=0, le=MAX_RETRY_DELAY_S)] | None = None
    retry_reason: Text | None = None
    classpath: Name | UnsetType = UNSET
    trigger_timeout: Duration | None = None
    timeout: Duration | None = None
    queue: Id | None = None
    next_method: Name | UnsetType = UNSET
    next_kwargs: dict[str, Any] | UnsetType = UNSET
    trigger_kwargs: Any = None
    loop_decision: LoopDecision | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_duration("trigger_timeout", self.trigger_timeout)
        _check_duration("timeout", self.timeout)
        if self.next_method is not UNSET and not self.next_method.isidentifier():
            raise ValueError(f"`next_method` is {self.next_method[:50]!r}; it must be the name of a method")


class SkipDownstream(Body):
    tasks: Annotated[list[Any], Meta(max_length=MAX_SKIPPED)] | UnsetType = UNSET
    """Each item is a task id, or a pair of task id and map index. msgspec 0.22.0 crashes on a union of `Id` and such a pair."""

    def __post_init__(self) -> None:
        for task in [] if self.tasks is UNSET else self.tasks:
            task_id, *map_index = task if isinstance(task, list) and len(task) == 2 else (task,)
            msgspec.convert(task_id, Id)
            msgspec.convert(map_index, list[MapIndex])


class InputUser(Body):
    id: Name
    name: Name


class InputRequest(Body):
    """A question of a task to a user (human in the loop)."""

    ti_id: Any = None
    options: list[Text] | UnsetType = UNSET
    subject: Text | UnsetType = UNSET
    body: Text | None = None
    defaults: list[Text] | None = None
    multiple: Any = None
    params: dict[str, Any] | UnsetType | None = UNSET
    assigned_users: list[InputUser] | UnsetType | None = UNSET
    type: Name | UnsetType = UNSET
    """The Task SDK's name of the message, which Airflow ignores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_not_encoded("params", self.params)


class InputResponse(Body):
    ti_id: Any = None
    chosen_options: list[Text] | UnsetType = UNSET
    params_input: dict[str, Any] | UnsetType = UNSET
    type: Name | UnsetType = UNSET
    """As in :class:`InputRequest`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_not_encoded("params_input", self.params_input)


class Stored(Body):
    """A value for the store of a task instance or an asset."""

    value: Any = None
    expires_at: Moment | None = None


class NewRun(Body):
    logical_date: Moment | None = None
    run_after: Moment | None = None
    conf: dict[str, Any] | UnsetType = UNSET
    partition_key: Id | None = None
    note: Name | None = None
    reset_dag_run: Any = None

    def __post_init__(self) -> None:
        for name in ("logical_date", "run_after"):
            if (value := getattr(self, name)) is not None:
                _check_moment(name, value, earliest=EARLIEST_LOGICAL, latest=LATEST_LOGICAL)


class Note(Body):
    """A note for the Dag run of a task."""

    note: Name | None = None


class TestResult(Body):
    """How a connection test ended."""

    state: Any = None
    result_message: Any = None


class Variable(Body):
    val: Any = None
    description: Text | None = None


RenderedMapIndex = Id
RenderedFields = Annotated[dict[str, Any], Meta(min_length=1)]
"""For an empty object Airflow reads the task's definition, which this call does not load, and answers 500."""


class XCom:
    """Stands for any JSON that :func:`check_xcom` accepts."""


Dates = tuple[datetime, datetime]
"""The first date of a range, and the first one after the range."""


def check(
    body_type: Any,
    *,
    named: Mapping[str, str],
    query: Sequence[tuple[str, str]],
    body: bytes,
    known: Collection[str] | None = None,
    stored: Dates | None = None,
) -> None:
    """Return if the values of a call are within their bounds.

    Args:
        body_type: type of the route's body; None: Airflow does not read it.
        named: the parameters of the path, decoded.
        query: the parameters of the query, decoded.
        body: as received; empty: Airflow checks whether the route needs one.
        known: the parameters that its query may have; None: any.
        stored: the dates that central's database stores; None: all.

    Raises:
        OutOfBounds: a value is out of bounds.
        NoRule: a parameter or a field has no rule.
    """
    for name, value in (*named.items(), *query):
        _check_parameter(name, value)
    for name, _ in query:
        if known is not None and name not in known:
            raise NoRule(f"its query has the parameter {name[:50]!r}, for which there is no rule; {NO_RULE_HINT}")
    if body_type is None:
        return
    for name in MAX_KEY_LENGTHS.keys() & named.keys():
        if len(named[name]) > MAX_KEY_LENGTHS[name]:
            raise OutOfBounds(f"its key has {len(named[name])} characters; {MAX_KEY_LENGTHS[name]} is the limit")
    if body:
        before = _stored.set(stored)
        try:
            _check_body(body_type, body)
        finally:
            _stored.reset(before)


MAX_KEY_LENGTHS = {"key": 512, "variable_key": 250}
"""By parameter of the path: how many characters Airflow's columns of XComs, stored state and variables hold."""
_stored: ContextVar[Dates | None] = ContextVar("stored", default=None)
"""Passes the dates to the types of bodies, because msgspec passes them only their fields."""


def decode_path(path: str) -> str:
    """Return a percent-encoded path decoded.

    Raises:
        OutOfBounds: it has a part `.` or `..`, or contains control characters.
    """
    decoded = unquote(path)
    if any(ord(char) < ord(" ") for char in decoded):
        raise OutOfBounds("its path contains control characters")
    if any(part in ("..", ".") for part in decoded.split("/")):
        raise OutOfBounds("its path has a part that is only dots")
    return decoded


def check_versions(versions: Iterable[str]) -> None:
    """Return if a call names no version of the Execution API, or one that the rules cover.

    Raises:
        OutOfBounds: the version is older or newer, or malformed.
    """
    for version in versions:
        if not API_VERSION.fullmatch(version) or not OLDEST_API_VERSION <= version <= NEWEST_API_VERSION:
            raise OutOfBounds(
                f"the header airflow-api-version is {version[:50]!r}; it must be from {OLDEST_API_VERSION} to "
                f"{NEWEST_API_VERSION}: install the Task SDK of central's Airflow version"
            )


def check_xcom(value: object) -> None:
    """Return if Airflow shows this XCom without decoding an object. (Airflow parses a text as JSON, and decodes the result.)

    Raises:
        OutOfBounds: it is a text that contains an encoded object.
    """
    if not isinstance(value, str) or not ("__" in value or "\\u" in value):
        return
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return  # Airflow cannot parse it either
    if _contains_encoded(parsed):
        raise OutOfBounds("its body is a text that contains an encoded object as JSON (`__classname__`); store the object itself")


def check_json(body: bytes) -> None:
    """Return if *body* is JSON that every database stores.

    Raises:
        OutOfBounds: it contains NaN, a NUL or an unpaired surrogate, or is nested too deeply.
    """
    _check_body(Any, body)


INTEGERS = frozenset({"map_index", "mapped_length", "offset", "limit", "start", "stop", "step"})
"""Parameters that are numbers on every route."""
NOT_NEGATIVE = frozenset({"mapped_length", "limit"})
MOMENTS = frozenset({"logical_date", "logical_dates", "after", "before"})
"""Parameters that are dates to compare with."""
INTEGER = re.compile(r"-?[0-9]{1,10}")


def _check_parameter(name: str, value: str) -> None:
    if "\0" in value or "\0" in name:
        raise OutOfBounds(f"the parameter {name[:50]!r} contains a NUL character, which databases do not store")
    if name in INTEGERS:
        least = 0 if name in NOT_NEGATIVE else -MAX_INT
        if not INTEGER.fullmatch(value) or not least <= int(value) <= MAX_INT:
            raise OutOfBounds(f"the parameter {name!r} is {value[:50]!r}; it must be a number from {least} to {MAX_INT}")
    elif name in MOMENTS:
        try:
            moment = msgspec.convert(value, Moment)
            _check_moment(name, moment, earliest=EARLIEST_LOGICAL, latest=LATEST_LOGICAL)
        except ValueError:
            raise OutOfBounds(
                f"the parameter {name!r} is {value[:50]!r}; it must be a date with a time zone "
                f"from {EARLIEST_LOGICAL:%Y-%m-%d} to {LATEST_LOGICAL:%Y-%m-%d}"
            ) from None


NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL in JSON: an escape whose backslash is not itself escaped."""
_decode = msgspec.json.Decoder().decode


def _check_body(body_type: Any, body: bytes) -> None:
    if b"\\u0000" in body and NUL.search(body):  # the first test takes a hundredth of the time
        raise OutOfBounds("its body contains a NUL character (\\u0000), which databases do not store")
    try:
        value = _decode(body)
    except (ValueError, RecursionError) as error:
        raise OutOfBounds(
            f"its body is not JSON in UTF-8 without NaN, Infinity and unpaired surrogates, which databases do not store: {error}"
        ) from None
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH and _exceeds_depth(value, MAX_JSON_DEPTH):
        raise OutOfBounds(f"its body is nested more than {MAX_JSON_DEPTH} levels deep")
    if body_type is Any:
        return
    if body_type is XCom:
        check_xcom(value)
        return
    try:
        msgspec.convert(value, body_type)
    except (ValueError, OverflowError) as error:
        if "unknown field" in str(error):
            raise NoRule(f"its body: {error}; {NO_RULE_HINT}") from None
        raise OutOfBounds(f"its body: {error}") from None


def _exceeds_depth(value: object, most: int) -> bool:
    """Return whether dicts and lists are nested more than *most* levels deep."""
    return next(itertools.islice(_levels(value), most, None), None) is not None


def _check_not_encoded(name: str, value: object) -> None:
    """Raise ValueError if *value* contains an encoded object."""
    if _contains_encoded(value):
        raise ValueError(f"`{name}` contains an encoded object; its values must be plain")


def _contains_encoded(value: object) -> bool:
    return any(isinstance(holder, dict) and not ENCODED.isdisjoint(holder) for level in _levels(value) for holder in level)


def _levels(value: object) -> Iterator[list[Any]]:
    """Yield the dicts and lists of each level, outermost first. Not recursive, because the worker chooses the depth of a body."""
    level = [value] if isinstance(value, (dict, list)) else []
    while level:
        yield level
        level = [
            item
            for holder in level
            for item in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(item, (dict, list))
        ]


def _check_moment(name: str, moment: datetime, *, earliest: datetime, latest: datetime) -> None:
    stored = _stored.get()
    if stored is not None:
        earliest, latest = max(earliest, stored[0]), min(latest, stored[1])
    if not earliest <= moment < latest:
        raise ValueError(f"`{name}` is not from {earliest:%Y-%m-%d} to {latest:%Y-%m-%d}")


DURATION = re.compile(
    r"[+-]?P(?!$)(?:(?P<years>\d{1,4})Y)?(?:(?P<months>\d{1,5})M)?(?:(?P<weeks>\d{1,5})W)?(?:(?P<days>\d{1,6})D)?"
    r"(?:T(?!$)(?:(?P<hours>\d{1,7})H)?(?:(?P<minutes>\d{1,9})M)?(?:(?P<seconds>\d{1,10}(?:\.\d{1,9})?)S)?)?",
    re.ASCII,
)
"""ISO 8601, as pydantic writes (`P1Y35DT2H`) and reads it."""
DAYS = {"years": 365, "months": 30, "weeks": 7, "days": 1}
"""How many days pydantic counts for each unit."""
SECONDS = {"hours": 3600, "minutes": 60, "seconds": 1}


def _check_duration(name: str, duration: Duration | None) -> None:
    """Raise ValueError if *duration* is malformed or too long."""
    if duration is None:
        return
    if isinstance(duration, str):
        match = DURATION.fullmatch(duration)
        if match is None:
            raise ValueError(f"`{name}` is {duration[:50]!r}; it must be a duration as ISO 8601 writes it, such as PT1H30M")
        parts = {unit: float(number) for unit, number in match.groupdict().items() if number}
        days = sum(DAYS[unit] * number for unit, number in parts.items() if unit in DAYS)
        seconds = days * 86400 + sum(SECONDS[unit] * number for unit, number in parts.items() if unit in SECONDS)
    else:
        seconds = abs(duration)
    if seconds > MAX_TIMEOUT.total_seconds():
        raise ValueError(f"`{name}` is longer than {MAX_TIMEOUT.days} days")
