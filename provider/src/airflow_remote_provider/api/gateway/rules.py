"""The table of all routes of Airflow's Execution API, with the meaning of each call for the gateway and the rule that limits it.

A call that is not in the table is refused. A path is decoded once and matched once (:func:`find`) as by Airflow's own router: on
the decoded path, in the order of the table. A key (`:path`) is the whole rest of the path, including slashes.

All other code (acceptance, conclusion, grants, the call that is passed on) uses the match and never parses the path again. Rules
decide from the call and its subject, without the database; a needed grant is returned as an :class:`..grants.Ask`.
docs/reference/grants.md is generated from this table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from airflow_remote_protocol import bounds
from airflow_remote_protocol.messages import JobKind

from airflow_remote_provider.api.gateway.parameters import parameters_of
from airflow_remote_provider.definitions.grants import Ask, GrantKind, Skip

if TYPE_CHECKING:  # the documentation is generated without a database
    from airflow_remote_provider.ledger.fence import Subject


class NotAllowed(Exception):
    """No grant can allow this call; the text says why."""


@dataclass(frozen=True)
class Call:
    """One call: its subject, the names in its path and query, and its body, unparsed."""

    subject: Subject
    path: Mapping[str, str]
    query: Mapping[str, list[str]]
    body: bytes
    versions: Sequence[str]
    """The requested versions of the Execution API; if empty, the newest."""

    def one(self, name: str) -> str:
        """Return the value of a query parameter; empty if it isn't given.

        Raises:
            NotAllowed: it is given twice, and Airflow would choose which one counts.
        """
        values = self.query.get(name, [])
        if len(values) > 1:
            raise NotAllowed(f"the query parameter {name!r} is given {len(values)} times")
        return values[0] if values else ""

    @property
    def dag_id(self) -> str:
        return self.path.get("dag_id") or self.one("dag_id")


Need = Ask | Skip
"""A requirement of a call: a grant, or that the tasks which it skips are downstream of its own task."""
Judge = Callable[[Call], "tuple[Need, ...]"]
"""Returns everything that the call needs; empty if it needs nothing.

Raises:
    NotAllowed: no grant can allow the call.
"""

TASKS = frozenset({JobKind.TASK})
WAITS = frozenset({JobKind.TASK, JobKind.TRIGGER})
"""For calls that the trigger of a deferred task may also make."""
TASKS_AND_CALLBACKS = frozenset({JobKind.TASK, JobKind.CALLBACK, JobKind.TRIGGER})
CALLBACKS = frozenset({JobKind.CALLBACK})
TESTS = frozenset({JobKind.CONNECTION_TEST})


class Meaning(str, Enum):
    """What a call means to the gateway, besides its effect in Airflow."""

    OTHER = "other"
    START = "start"
    """The task process asks whether it may run, which accepts the offer."""
    CONCLUDE = "conclude"
    """The task reports its state, which ends the lease or begins a wait."""
    READ_SECRET = "read-secret"
    """The answer "not found" counts only while the database answers."""
    START_CALLBACK = "start-callback"
    """The callback's supervisor asks whether it may run; Airflow allows that once."""
    WRITE_OF_TRY = "write-of-try"
    """The call writes something that has no try in its key, so that a later try would read it."""


@dataclass(frozen=True)
class Rule:
    """The limits of a route. *text* is for users."""

    text: str
    judge: Judge
    kinds: frozenset[JobKind] = TASKS
    meaning: Meaning = Meaning.OTHER
    body: Any = None
    """The type of the body (:mod:`airflow_remote_protocol.bounds`); None if Airflow does not read it."""
    query: frozenset[str] = frozenset()
    """The parameters that the query may have (:mod:`.parameters`)."""

    def with_body(self, body: Any) -> Rule:
        """Return the rule of a route whose body Airflow reads."""
        return replace(self, body=body)


# The rules


FREE: tuple[Ask, ...] = ()


def _own(call: Call) -> tuple[Ask, ...]:
    if call.path["task_instance_id"] != str(call.subject.id):
        raise NotAllowed("it is about another task instance than this job's")
    return FREE


def _own_state(call: Call) -> tuple[Ask, ...]:
    _own(call)
    try:
        said = json.loads(call.body)
    except ValueError:  # Airflow reads it the same way, and refuses it
        return FREE
    except RecursionError:
        raise NotAllowed("its body is nested too deeply") from None
    try:
        return tuple(_outlets(said))
    except (TypeError, AttributeError, KeyError):
        raise NotAllowed("its body is not a valid task state") from None


def _skip_downstream(call: Call) -> tuple[Need, ...]:
    _own(call)
    try:
        named = json.loads(call.body)["tasks"]
        tasks = frozenset((task, -1) if isinstance(task, str) else _mapped(*task) for task in named)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise NotAllowed('its body does not name tasks; expected is {"tasks": ["task_id", ["task_id", map_index]]}') from None
    return (Skip(tasks),) if tasks else FREE


def _mapped(task_id: object, map_index: object) -> tuple[str, int]:
    if not isinstance(task_id, str) or not isinstance(map_index, int):
        raise TypeError
    return task_id, map_index


def _own_hitl(call: Call) -> tuple[Ask, ...]:
    """Check the body, too: it also names the task instance, and a later Airflow may read that."""
    _own(call)
    try:
        ti_id = json.loads(call.body)["ti_id"]
    except (ValueError, TypeError, KeyError, RecursionError):  # Airflow reads it the same way, and refuses it
        return FREE
    if str(ti_id) != str(call.subject.id):
        raise NotAllowed("its body is about another task instance than this job's")
    return FREE


def _own_test(call: Call) -> tuple[Ask, ...]:
    if call.path["connection_test_id"] != str(call.subject.id):
        raise NotAllowed("it is about another connection test than this job's")
    return FREE


def _own_callback(call: Call) -> tuple[Ask, ...]:
    if call.path["callback_id"] != str(call.subject.id):
        raise NotAllowed("it is about another callback than this job's")
    return FREE


def _connection(call: Call) -> tuple[Ask, ...]:
    return (Ask(GrantKind.CONNECTIONS, (call.path["connection_id"],)),)


def _variable(call: Call) -> tuple[Ask, ...]:
    return (Ask(GrantKind.VARIABLES, (call.path["variable_key"],)),)


def _write_variable(call: Call) -> tuple[Ask, ...]:
    return (Ask(GrantKind.WRITES, (call.path["variable_key"],)),)


def _list_variables(call: Call) -> tuple[Ask, ...]:
    for version in call.versions:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", version):
            raise NotAllowed(f"{version[:20]!r} is no version of the Execution API")
        if version < LISTS_SINCE:  # there the route reads the variable named `keys`
            return (Ask(GrantKind.VARIABLES, ("keys",)),)
    return (Ask(GrantKind.VARIABLES, (call.one("prefix"),), listing=True),)


LISTS_SINCE = "2026-06-30"
"""The first version of the Execution API that lists variables."""


def _read_xcom(call: Call) -> tuple[Ask, ...]:
    me = call.subject
    earlier = call.one("include_prior_dates").lower() not in ("", "false", "0")
    if (call.dag_id, call.path["run_id"]) == (me.dag_id, me.run_id) and not earlier:
        return FREE
    return (Ask(GrantKind.XCOMS_OF, (call.dag_id,)),)


def _write_xcom(call: Call) -> tuple[Ask, ...]:
    me = call.subject
    theirs = (call.path["dag_id"], call.path["run_id"], call.path["task_id"], call.one("map_index") or "-1")
    if theirs != (me.dag_id, me.run_id, me.task_id, str(me.map_index)):
        raise NotAllowed("a task may write and delete XComs of its own task instance only")
    return FREE


def _ask_about_dag(call: Call) -> tuple[Ask, ...]:
    if call.dag_id == call.subject.dag_id:
        return FREE
    return (Ask(GrantKind.DAGS, (call.dag_id,), run=call.path.get("run_id", "")),)


def _act_on_dag(call: Call) -> tuple[Ask, ...]:
    return (Ask(GrantKind.TRIGGER_DAGS, (call.dag_id,)),)


def _asset(kind: GrantKind, *selectors: str) -> Judge:
    def judge(call: Call) -> tuple[Ask, ...]:
        return (_asset_ask(kind, *map(call.one, selectors)),)

    return judge


def _outlets(said: Any) -> Iterator[Ask]:
    """Return the writes of the assets that a successful task reports as changed: Airflow starts other Dags on asset events."""
    for outlet in said.get("task_outlets") or ():
        yield _asset_ask(GrantKind.ASSET_WRITES, *(outlet.get(key) for key in NAMED_BY.get(outlet["type"], ("name",))))
    for event in said.get("outlet_events") or ():
        destination = event["dest_asset_key"]
        if "source_alias_name" in event:
            # Airflow creates an asset of that name and URI if necessary, and starts the Dags that wait for either.
            yield _asset_ask(GrantKind.ASSET_WRITES, event["source_alias_name"])
            yield _asset_ask(GrantKind.ASSET_WRITES, destination["name"])
            yield _asset_ask(GrantKind.ASSET_WRITES, destination["uri"])
        else:
            yield _asset_ask(GrantKind.ASSET_WRITES, destination["name"], destination["uri"])


NAMED_BY = {"Asset": ("name", "uri"), "AssetUriRef": ("uri",)}
"""The keys by which Airflow finds an asset, by the reported type; any other type is found by its name."""


def _asset_ask(kind: GrantKind, *names: object) -> Ask:
    return Ask(kind, tuple(str(name) for name in names if name) or ("",))


OWN = Rule("the job's own task instance", _own)
OWN_OR_WAIT = Rule("the job's own task instance", _own, WAITS)
OWN_WRITE = Rule("the job's own task instance", _own, meaning=Meaning.WRITE_OF_TRY)
OWN_NOTE = Rule("the note of the job's own Dag run; Airflow 3.4", _own, meaning=Meaning.WRITE_OF_TRY)
OWN_START = Rule("the job's own task instance; central writes the host name, which is empty", _own, meaning=Meaning.START)
OWN_STATE = Rule(
    "the job's own task instance; outlets that it reports as changed, and assets of the events of its aliases: `asset_writes`; "
    "the trigger of a deferral runs at the site",
    _own_state,
    meaning=Meaning.CONCLUDE,
)
SKIP_DOWNSTREAM = Rule(
    "the job's own task instance; only tasks downstream of it in the job's Dag version",
    _skip_downstream,
    meaning=Meaning.WRITE_OF_TRY,
)
OWN_HITL = Rule("the job's own task instance, in the path and in the body", _own_hitl)
ANSWER_HITL = replace(OWN_HITL, kinds=WAITS)
TEST = Rule("the job's own connection test", _own_test, TESTS)
START_CALLBACK = Rule("the job's own callback; Airflow 3.4", _own_callback, CALLBACKS, Meaning.START_CALLBACK)
NOTHING = Rule("free: reveals nothing", lambda _: FREE, frozenset(JobKind))
READ_CONNECTION = Rule("`connections`", _connection, TASKS_AND_CALLBACKS, Meaning.READ_SECRET)
READ_VARIABLE = Rule("`variables`", _variable, TASKS_AND_CALLBACKS, Meaning.READ_SECRET)
WRITE_VARIABLE = Rule("`writes`", _write_variable)
LIST_VARIABLES = Rule("`variables`, with a glob such as `plant_*` that covers the whole prefix", _list_variables, WAITS)
READ_XCOM = Rule("the job's own Dag run; other runs, of this Dag too: `xcoms_of`", _read_xcom, WAITS)
WRITE_XCOM = Rule("the job's own task instance", _write_xcom, meaning=Meaning.WRITE_OF_TRY)
ASK_ABOUT_DAG = Rule(
    "the job's own Dag; one run, whose asset event triggered the job's own run; other Dags: `dags`", _ask_about_dag, WAITS
)
ACT_ON_DAG = Rule("`trigger_dags`, also for its own Dag", _act_on_dag)
READS_ASSET = "`assets`; the task's inlets and outlets are inferred"
WRITES_ASSET = "`asset_writes`; the task's outlets are inferred"
READ_ASSET_BY_NAME = Rule(READS_ASSET, _asset(GrantKind.ASSETS, "name"))
READ_ASSET_BY_URI = Rule(READS_ASSET, _asset(GrantKind.ASSETS, "uri"))
READ_ASSET_BY_ALIAS = Rule(READS_ASSET, _asset(GrantKind.ASSETS, "alias_name"))
READ_ASSET_BY_EITHER = Rule(READS_ASSET, _asset(GrantKind.ASSETS, "name", "uri"))
WRITE_ASSET_BY_NAME = Rule(WRITES_ASSET, _asset(GrantKind.ASSET_WRITES, "name"))
WRITE_ASSET_BY_URI = Rule(WRITES_ASSET, _asset(GrantKind.ASSET_WRITES, "uri"))

TABLE: list[tuple[str, str, Rule]] = [
    ("GET", "health", NOTHING),
    ("GET", "health/ping", NOTHING),
    # The task instance itself
    ("PATCH", "task-instances/{task_instance_id}/run", OWN_START.with_body(bounds.Run)),
    ("PATCH", "task-instances/{task_instance_id}/state", OWN_STATE.with_body(bounds.State)),
    ("PATCH", "task-instances/{task_instance_id}/skip-downstream", SKIP_DOWNSTREAM.with_body(bounds.SkipDownstream)),
    ("PATCH", "task-instances/{task_instance_id}/dag-run-note", OWN_NOTE.with_body(bounds.Note)),
    ("PUT", "task-instances/{task_instance_id}/heartbeat", OWN_WRITE.with_body(bounds.Heartbeat)),
    ("PUT", "task-instances/{task_instance_id}/rtif", OWN_WRITE.with_body(bounds.RenderedFields)),
    ("PATCH", "task-instances/{task_instance_id}/rendered-map-index", OWN_WRITE.with_body(bounds.RenderedMapIndex)),
    ("GET", "task-instances/{task_instance_id}/previous-successful-dagrun", OWN_OR_WAIT),
    ("GET", "task-instances/{task_instance_id}/validate-inlets-and-outlets", OWN),
    ("GET", "task-reschedules/{task_instance_id}/start_date", OWN_OR_WAIT),
    ("POST", "hitlDetails/{task_instance_id}", OWN_HITL.with_body(bounds.InputRequest)),
    ("PATCH", "hitlDetails/{task_instance_id}", ANSWER_HITL.with_body(bounds.InputResponse)),
    ("GET", "hitlDetails/{task_instance_id}", OWN_OR_WAIT),
    ("GET", "store/ti/{task_instance_id}/{key:path}", OWN_OR_WAIT),
    ("PUT", "store/ti/{task_instance_id}/{key:path}", OWN_WRITE.with_body(bounds.Stored)),
    ("DELETE", "store/ti/{task_instance_id}/{key:path}", OWN_WRITE),
    ("DELETE", "store/ti/{task_instance_id}", OWN_WRITE),
    # Secrets
    ("GET", "connections/{connection_id:path}", READ_CONNECTION),
    ("GET", "variables/keys", LIST_VARIABLES),
    ("GET", "variables/{variable_key:path}", READ_VARIABLE),
    ("PUT", "variables/{variable_key:path}", WRITE_VARIABLE.with_body(bounds.Variable)),
    ("DELETE", "variables/{variable_key:path}", WRITE_VARIABLE),
    # XComs
    ("GET", "xcoms/{dag_id}/{run_id}/{task_id}/{key:path}/item/{offset}", READ_XCOM),
    ("GET", "xcoms/{dag_id}/{run_id}/{task_id}/{key:path}/slice", READ_XCOM),
    ("HEAD", "xcoms/{dag_id}/{run_id}/{task_id}/{key:path}", READ_XCOM),
    ("GET", "xcoms/{dag_id}/{run_id}/{task_id}/{key:path}", READ_XCOM),
    ("POST", "xcoms/{dag_id}/{run_id}/{task_id}/{key:path}", WRITE_XCOM.with_body(bounds.XCom)),
    ("DELETE", "xcoms/{dag_id}/{run_id}/{task_id}/{key:path}", WRITE_XCOM),
    # Dags and their runs
    ("GET", "dags/{dag_id}", ASK_ABOUT_DAG),
    ("GET", "dag-runs/count", ASK_ABOUT_DAG),
    ("GET", "dag-runs/previous", ASK_ABOUT_DAG),
    ("GET", "dag-runs/{dag_id}/previous", ASK_ABOUT_DAG),
    ("GET", "dag-runs/{dag_id}/{run_id}", ASK_ABOUT_DAG),
    ("GET", "dag-runs/{dag_id}/{run_id}/state", ASK_ABOUT_DAG),
    ("POST", "dag-runs/{dag_id}/{run_id}", ACT_ON_DAG.with_body(bounds.NewRun)),
    ("POST", "dag-runs/{dag_id}/{run_id}/clear", ACT_ON_DAG),
    ("GET", "task-instances/count", ASK_ABOUT_DAG),
    ("GET", "task-instances/states", ASK_ABOUT_DAG),
    ("GET", "task-instances/breadcrumbs", ASK_ABOUT_DAG),
    ("GET", "task-instances/previous/{dag_id}/{task_id}", ASK_ABOUT_DAG),
    # Assets
    ("GET", "assets/by-name", READ_ASSET_BY_NAME),
    ("GET", "assets/by-uri", READ_ASSET_BY_URI),
    ("GET", "assets/by-alias", READ_ASSET_BY_ALIAS),
    ("GET", "asset-events/by-asset", READ_ASSET_BY_EITHER),
    ("GET", "asset-events/by-asset-alias", READ_ASSET_BY_NAME),
    ("GET", "store/asset/by-name/value", READ_ASSET_BY_NAME),
    ("PUT", "store/asset/by-name/value", WRITE_ASSET_BY_NAME.with_body(bounds.Stored)),
    ("DELETE", "store/asset/by-name/value", WRITE_ASSET_BY_NAME),
    ("DELETE", "store/asset/by-name/clear", WRITE_ASSET_BY_NAME),
    ("GET", "store/asset/by-uri/value", READ_ASSET_BY_URI),
    ("PUT", "store/asset/by-uri/value", WRITE_ASSET_BY_URI.with_body(bounds.Stored)),
    ("DELETE", "store/asset/by-uri/value", WRITE_ASSET_BY_URI),
    ("DELETE", "store/asset/by-uri/clear", WRITE_ASSET_BY_URI),
    # A connection test
    ("GET", "connection-tests/{connection_test_id}/connection", TEST),
    ("PATCH", "connection-tests/{connection_test_id}", TEST.with_body(bounds.TestResult)),
    # A callback
    ("PATCH", "callbacks/{callback_id}/run", START_CALLBACK),
]
TABLE = [(method, path, replace(rule, query=parameters_of(method, path))) for method, path, rule in TABLE]


@dataclass(frozen=True)
class Match:
    """A call's rule and the names in its path. The path is parsed nowhere else."""

    method: str
    rule: Rule
    named: Mapping[str, str]
    decoded: str
    """The decoded path for Airflow's router, without a leading slash."""
    raw: str
    """The path as received, percent-encoded."""

    @property
    def meaning(self) -> Meaning:
        return self.rule.meaning


def find(method: str, path: str) -> Match:
    """Return the rule of a call. *path*: percent-encoded, no leading slash.

    Raises:
        NotAllowed: the path has `.` or `..` segments or control characters, or there is no rule for it.
    """
    try:
        decoded = bounds.decode_path(path)
    except bounds.OutOfBounds as error:
        raise NotAllowed(str(error)) from None
    found = read(method, decoded)
    if found is None:
        raise NotAllowed(f"there is no rule for it, or no such route; {bounds.NO_RULE_HINT}")
    rule, named = found
    return Match(method, rule, named, decoded, path)


def judge(
    subject: Subject, match: Match, *, query: bytes = b"", body: bytes = b"", versions: Sequence[str] = ()
) -> tuple[Need, ...]:
    """Return everything that the call needs; empty if it needs nothing.

    Raises:
        NotAllowed: this job may never make it.
    """
    if subject.kind not in match.rule.kinds:
        raise NotAllowed(f"jobs of the kind {subject.kind.value} may not call this route")
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        given.setdefault(name, []).append(value)
    asks = tuple(dict.fromkeys(match.rule.judge(Call(subject, match.named, given, body, versions))))
    if len(asks) > MOST_ASKS:
        raise NotAllowed(f"it needs {len(asks)} grants; at most {MOST_ASKS} are looked up for one call")
    if any(len(name) > LONGEST_NAME for ask in asks for name in ask.names):
        raise NotAllowed(f"it contains a name of more than {LONGEST_NAME} characters")
    return asks


def check_values(match: Match, *, query: bytes = b"", body: bytes = b"") -> None:
    """Check that the values of a call are within their bounds.

    Raises:
        OutOfBounds: a value is not.
    """
    from airflow_remote_provider import compat  # here, because the documentation is generated without Airflow

    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    bounds.check(match.rule.body, named=match.named, query=given, body=body, known=match.rule.query, stored=compat.date_range())


MOST_ASKS = 500
"""Outlets of one task, for example. Each grant costs a database query."""
LONGEST_NAME = 2000
"""Airflow's longest name, an asset's URI, has 1,500 characters. Answers are cached by name, so a name must be bounded."""


def read(method: str, decoded_path: str) -> tuple[Rule, dict[str, str]] | None:
    """Return the rule of a call and the names in its path; None if there is no such rule."""
    for pattern, rule in _BY_START.get((method, decoded_path.partition("/")[0]), ()):
        if match := pattern.fullmatch(decoded_path):
            return rule, match.groupdict()
    return None


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a path as Starlette does: a parameter matches one segment, or with `:path` the rest of the path."""
    parts = re.split(r"(\{\w+(?::path)?\})", pattern)
    return re.compile("".join(_group(part) if part.startswith("{") else re.escape(part) for part in parts))


def _group(part: str) -> str:
    name, _, converter = part.strip("{}").partition(":")
    return f"(?P<{name}>{'.*' if converter else '[^/]+'})"


_BY_START: dict[tuple[str, str], list[tuple[re.Pattern[str], Rule]]] = {}
for _method, _path, _rule in TABLE:
    _BY_START.setdefault((_method, _path.partition("/")[0]), []).append((_compiled(_path), _rule))
