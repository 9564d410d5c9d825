"""Central answers any input in time and never with an internal error.

The bodies are made from the messages' own JSON schemas, so that most of them pass the decoder; then mangled, so that some don't.
(The worker API has no OpenAPI document; docs/protocol.md and these types are its contract.)
"""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from airflow_remote_protocol.messages import BlobsWanted, Decline, Enrolment, Inventory, Poll, Report, SessionRequest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from testkit.attacker import Attacker, take_over
from testkit.central import ServedCentral

IN_TIME_S = 20.0
"""Limit for a request that asks for no wait. It is ample, since the machine may be busy."""
ROUTES: dict[str, type[msgspec.Struct]] = {
    "enrol": Enrolment,
    "session": SessionRequest,
    "poll": Poll,
    "jobs/{job}/decline": Decline,
    "jobs/{job}/report": Report,
    "inventory": Inventory,
    "trees/{tree}/blobs": BlobsWanted,
}
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([2**31, 2**63, -(2**63) - 1, 1e308])
texts = st.text(max_size=80) | st.sampled_from(["\x00", "\x1b[2J", "'; --", "a" * 3000, "%s", "\u202e"])
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def _made_from(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values that mostly fit *schema*, in msgspec's format."""
    if "$ref" in schema:
        return _made_from(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return st.one_of(*(_made_from(one, definitions) for one in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        wanted = set(schema.get("required", ()))
        fields = {name: _made_from(one, definitions) for name, one in schema.get("properties", {}).items()}
        must = {name: field for name, field in fields.items() if name in wanted}
        return st.fixed_dictionaries(must, optional={name: field for name, field in fields.items() if name not in wanted})
    if kind == "array":
        return st.lists(_made_from(schema.get("items", {}), definitions), max_size=5)
    if kind == "integer":
        return st.integers(schema.get("minimum"), schema.get("maximum")) | numbers
    if kind == "number":
        return numbers
    if kind == "string":
        fitting = st.from_regex(schema["pattern"]) if "pattern" in schema else texts
        return fitting.map(lambda text: text[: schema.get("maxLength", 80)]) | texts
    return {"boolean": st.booleans(), "null": st.none()}.get(str(kind), anything)


def _bodies(kind: type[msgspec.Struct]) -> st.SearchStrategy[bytes]:
    (schema,), definitions = msgspec.json.schema_components([kind])
    fitting = _made_from(schema, definitions)
    mangled = st.tuples(fitting, st.dictionaries(texts, anything, max_size=2)).map(lambda both: {**both[0], **both[1]})
    return st.one_of(fitting, mangled, anything).map(lambda said: json.dumps(said).encode()) | st.binary(max_size=200)


@pytest.mark.parametrize("path", ROUTES)
def test_no_message_causes_an_internal_error(central: ServedCentral, path: str) -> None:
    attacker = take_over(central)
    headers = attacker.headers()
    if path == "enrol":
        headers["authorization"] = f"Bearer {central.enrolment_token(['q'], uses=1000)}"
    tree = _let_run_a_tree(attacker)

    @settings(
        max_examples=150,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(_bodies(ROUTES[path]))
    def check(body: bytes) -> None:
        _check_answer(attacker, "POST", path.format(job=attacker.offer.job_id, tree=tree), _without_wait(body), headers)

    check()


def _let_run_a_tree(attacker: Attacker) -> str:
    """Let the attacker's job run a tree; return its digest."""
    tree = attacker.central.publish({"dag.py": b"x = 1\n" * 1000})
    attacker.central.run_tree(attacker.offer.job_id, tree)
    return tree


def _without_wait(body: bytes) -> bytes:
    """Remove the wait that a poll may ask for."""
    try:
        said = json.loads(body)
    except ValueError:
        return body
    if isinstance(said, dict) and isinstance(said.get("wait_s"), (int, float)):
        said["wait_s"] = 0
    return json.dumps(said).encode()


HEADERS = [
    *("authorization", "cookie", "host", "x-forwarded-for", "correlation-id", "traceparent", "content-encoding", "content-type"),
    *(
        "range",
        "if-range",
        "accept-encoding",
        "airflow-api-version",
        "airflow-remote-protocol",
        "airflow-remote-session",
        "airflow-remote-epoch",
    ),
]
PATHS = [
    *("jobs/{job}/log?offset=0", "jobs/{job}/execution/health", "jobs/{job}/accept"),
    *("trees/{tree}/pack", "trees/{tree}/pack?base={tree}&lzma=0", "trees/{tree}/blobs", "ping", "poll", "x/y"),
]
header_texts = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)


@settings(max_examples=200, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND"]),
    path=st.sampled_from(PATHS),
    name=st.sampled_from(HEADERS),
    value=header_texts,
    body=st.binary(max_size=50),
)
def test_no_header_causes_an_internal_error(
    central: ServedCentral, method: str, path: str, name: str, value: str, body: bytes
) -> None:
    attacker = _known(central)
    headers = attacker.headers() | {name: value.strip()}
    _check_answer(attacker, method, path.format(job=attacker.offer.job_id, tree=_known_tree(attacker)), body, headers)


_attackers: dict[int, Attacker] = {}
_trees: dict[int, str] = {}


def _known(central: ServedCentral) -> Attacker:
    """Return one worker for all examples; a new one would cost more than its requests."""
    if central.port not in _attackers:
        _attackers[central.port] = take_over(central)
    return _attackers[central.port]


def _known_tree(attacker: Attacker) -> str:
    """Return the tree of the job of the one worker."""
    port = attacker.central.port
    if port not in _trees:
        _trees[port] = _let_run_a_tree(attacker)
    return _trees[port]


def _check_answer(attacker: Attacker, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
    began = time.monotonic()
    answer = attacker.send(method, path, body, headers)
    took_s = time.monotonic() - began
    is_too_often = path == "inventory" and answer.problem == "busy"
    assert answer.status < 500 or is_too_often, (answer, answer.body[:300])
    assert took_s < IN_TIME_S
    assert b"Traceback" not in answer.body
