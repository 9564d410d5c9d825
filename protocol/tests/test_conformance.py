"""The conformance suite itself. The tests of each central run the suite."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from airflow_remote_protocol import conformance
from airflow_remote_protocol.codec import encode
from airflow_remote_protocol.conformance import every_request, leases
from airflow_remote_protocol.conformance.central import Response
from airflow_remote_protocol.conformance.expect import expect_refusal
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.version import PROBLEM_HEADER


def test_all_lists_every_check_and_nothing_else() -> None:
    modules = [
        importlib.import_module(f"{conformance.__name__}.{found.name}") for found in pkgutil.iter_modules(conformance.__path__)
    ]
    found = [(module, check) for module in modules for _, check in inspect.getmembers(module, _is_check)]
    assert sorted(map(conformance.sentence, conformance.ALL)) == sorted(conformance.sentence(check) for _, check in found)
    assert all(check.__module__ == module.__name__ for module, check in found), "each check belongs to one module"
    assert len(set(map(conformance.sentence, conformance.ALL))) == len(conformance.ALL) > 90


def test_every_check_takes_a_central_and_nothing_else() -> None:
    assert {tuple(inspect.signature(check).parameters) for check in conformance.ALL} == {("central",)}


def test_a_check_reads_as_a_sentence() -> None:
    assert conformance.sentence(leases.check_accepting_is_idempotent) == "accepting is idempotent"


def test_the_rules_for_every_request_ask_for_every_route_of_the_document() -> None:
    document = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    written = [found.groups() for found in re.finditer(r"^\| \[`(\S+) ([^`?]+)[^`]*`\]", document, re.MULTILINE)]
    asked = every_request.all_routes()
    for method, path in written:
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path).replace(r"\{path\}", ".+"))
        of_route = [(by, to) for by, to in asked if method in (by, "*") and re.fullmatch(pattern, to.partition("?")[0])]
        assert len(of_route) == 1, f"requests for {method} {path}: {of_route}"
    assert len(written) >= 17


def _is_check(member: object) -> bool:
    return inspect.isfunction(member) and member.__name__.startswith("check_")


def _answer(code: ProblemCode, **changes: object) -> Response:
    headers = {PROBLEM_HEADER: code.value, "content-type": "application/problem+json"}
    made = Response(make_problem(code, "").status, headers, encode(make_problem(code, "")))
    return Response(**{"status": made.status, "headers": made.headers, "body": made.body, **changes})  # type: ignore[arg-type]


def test_a_complete_refusal_passes() -> None:
    assert expect_refusal(_answer(ProblemCode.BUSY), ProblemCode.BUSY).known_code is ProblemCode.BUSY


@pytest.mark.parametrize(
    "response",
    [
        _answer(ProblemCode.BUSY, status=500),
        _answer(ProblemCode.BUSY, headers={"content-type": "application/problem+json"}),
        _answer(ProblemCode.BUSY, headers={PROBLEM_HEADER: "busy", "content-type": "application/json"}),
        _answer(ProblemCode.BUSY, body=b"busy"),
        _answer(ProblemCode.INTERNAL),
    ],
    ids=["another status", "no header", "another content type", "no problem", "another problem"],
)
def test_an_incomplete_refusal_fails(response: Response) -> None:
    with pytest.raises(AssertionError):
        expect_refusal(response, ProblemCode.BUSY)
