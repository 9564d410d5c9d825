"""Forged paths: all parts of central must parse a path in the same way."""

from __future__ import annotations

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import GrantKind

from testkit.attacker import PASSWORD, Attacker, allow

CLIMBING = [
    "../variables/plant",
    "..%2fvariables/plant",
    "%2e%2e/variables/plant",
    "%2e%2e%2fvariables%2fplant",
    "health/../variables/plant",
    "health/%2E%2E/variables/plant",
    "health/..%2f..%2fvariables/plant",
    "/variables/plant",
    "%2fvariables/plant",
    "//variables/plant",
    "./variables/plant",
    "variables/./plant",
    "variables//plant",
    "variables/plant/",
    "variables%2fplant",
    "VARIABLES/plant",
    "variables/plant%00",
    "variables/%00plant",
    "variables%00/plant",
    "variables\\\\plant",
    "variables/..%5cplant",
    "variables/..\\\\..\\\\plant",
    "variables/%0d%0aplant",
    "variables/%c0%ae%c0%ae/plant",
    "variables/%ff%fe",
    "http://127.0.0.1/variables/plant",
    "//127.0.0.1/variables/plant",
    "variables/plant%3fx=1",
    "variables/plant;x=1",
    "variables/%2570lant",
    "variables/" + "a" * 30_000,
    "connections/plant",
    "connections/..%2fconnections/plant",
    "connections/plant%2f",
    "connections/%70lant",
    "docs",
    "openapi.json",
    "health/ready/../../connections/plant",
    "execution/connections/plant",
]
FORGED = [
    "..",
    "../",
    "../../api/v2/variables",
    "%2e%2e/%2e%2e/api/v2/variables",
    "..%2f..%2fapi%2fv2%2fvariables",
    "jobs/../ping",
    "jobs//accept",
    "jobs/%00/accept",
    "jobs/a%00b/report",
    "jobs/%2e%2e/accept",
    "jobs/..%2f..%2f/accept",
    "jobs/" + "a" * 20_000 + "/accept",
    "jobs/%ff%fe/log?offset=0",
    "jobs/%F0%9F%92%A9/accept",
    "jobs/' OR 1=1 --/accept".replace(" ", "%20"),
    "jobs/{{7*7}}/accept",
    "//etc/passwd",
    "C:%5cwindows%5csystem32",
    "%",
    "%zz",
    "poll%00",
    "ping%2f",
]


@pytest.mark.parametrize("path", CLIMBING, ids=lambda path: path[:40])
def test_no_spelling_of_a_path_reads_a_secret_without_a_grant(attacker: Attacker, path: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = attacker.send_about_job(method, f"execution/{path}", b'{"val":"x"}' if method == "PUT" else b"")
        assert answer.status in (400, 403, 404, 405, 422), (method, answer)
        assert PASSWORD.encode() not in answer.body


@pytest.mark.parametrize("path", FORGED, ids=lambda path: path[:40])
def test_a_forged_path_finds_no_route(attacker: Attacker, path: str) -> None:
    for method in ("GET", "POST"):
        answer = attacker.send(method, path, b"{}" if method == "POST" else b"")
        assert 400 <= answer.status < 500, answer


@pytest.mark.parametrize("spelling", ["%65xecution", "execution%2f", "execut%69on"])
def test_the_path_to_the_execution_api_has_one_spelling(attacker: Attacker, spelling: str) -> None:
    allow(attacker.worker.queue, GrantKind.VARIABLES, "plant")
    assert attacker.send_about_job("GET", "execution/variables/plant").status == 200
    answer = attacker.send_about_job("GET", f"{spelling}/variables/plant")
    assert answer.status in (404, 422)
    assert PASSWORD.encode() not in answer.body


def test_a_request_can_not_choose_a_log_s_path(attacker: Attacker) -> None:
    before = {file for file in compat.base_log_folder().parent.rglob("*")}
    for path in ("log?offset=0&path=../../x", "log?offset=0&log_path=/tmp/x", "log/../../x?offset=0", "log%2f..%2fx?offset=0"):
        attacker.send_about_job("POST", path, b"owned")
    new = {file for file in compat.base_log_folder().parent.rglob("*")} - before
    assert len([file for file in new if file.is_file()]) <= 1
    assert attacker.central.log_bytes(attacker.offer.job_id) in (b"", b"owned")
