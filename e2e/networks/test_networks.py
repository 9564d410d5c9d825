"""Topic suite: real workers and tasks through squid, mitmproxy and nginx; every network works with settings alone."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from testkit.authority import Authority
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.mitmproxy import Mitmproxy
from testkit.servers.nginx import Nginx
from testkit.servers.squid import Squid
from testkit.worker import Worker

from .conftest import CUT_S, PASSWORD, POLL_S, READ_TIMEOUT_S, SUBJECT_HEADER, USER

WAYS = ["proxied", "inspected", "below-path", "mutual", "exempt"]
POLL = "/remote/v1/poll"


@pytest.fixture(scope="module")
def run(central: Airflow, workers: Mapping[str, Worker]) -> str:
    """Return a finished run with a task on every path."""
    run = central.trigger("passable")
    assert central.wait_for_run("passable", run) == "success"
    return run


@pytest.mark.parametrize("way", WAYS)
def test_a_task_runs_and_its_log_arrives(central: Airflow, run: str, way: str) -> None:
    assert central.xcom("passable", run, way) == way
    assert f"spoken in {way}" in central.task_log("passable", run, way)


@pytest.mark.parametrize("way", WAYS)
def test_check_succeeds(workers: Mapping[str, Worker], way: str) -> None:
    output = workers[way].run("check")
    assert "ok   POST" in output
    assert "FAIL" not in output
    assert ("Corp Inspect CA" if way == "inspected" else "Corp Root CA") in output


def test_check_reports_a_wrong_password_without_showing_it(
    workers: Mapping[str, Worker], squid: Squid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker = workers["proxied"]
    login = tmp_path / "login"
    login.write_text(f"{USER}:mistyped")
    monkeypatch.setitem(worker.environment, "AIRFLOW_REMOTE_WORKER_PROXY_AUTH_FILE", str(login))
    with pytest.raises(RuntimeError, match=r"FAIL tunnel .* refuses user 'plant' with this password") as failed:
        worker.run("check")
    assert "mistyped" not in str(failed.value)


def test_check_names_an_inspecting_proxy_that_is_not_trusted(
    workers: Mapping[str, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers["inspected"]
    monkeypatch.delitem(worker.environment, "SSL_CERT_FILE")
    with pytest.raises(
        RuntimeError, match=r"FAIL TLS .* issued by O=Corp, CN=Corp Inspect CA, which this machine does not trust"
    ):
        worker.run("check")


def test_the_password_of_the_proxy_is_not_visible_anywhere(workers: Mapping[str, Worker], run: str) -> None:
    worker = workers["proxied"]
    # Its polls are cut every few seconds; `status` ends with 1 while that is its last result.
    seen = [worker.log.read_text(), worker.run("check")]
    seen += [worker.run(*status, may_fail=True) for status in (["status"], ["status", "--json"])]
    seen += [Path(f"/proc/{worker.pid}/{what}").read_text() for what in ("cmdline", "environ")]
    seen += [path.read_text(errors="replace") for path in worker.state.rglob("*") if path.is_file()]
    assert any(USER in text for text in seen), "the search covers the places where the login is"
    assert not any(PASSWORD in text for text in seen)


def test_each_worker_uses_its_configured_path(
    workers: Mapping[str, Worker], run: str, mitmproxy: Mitmproxy, squid: Squid, nginx: Nginx
) -> None:
    assert f"POST {nginx.url('plain')}{POLL}" in mitmproxy.seen()
    tunnel = f"localhost:{nginx.port('plain')}"
    wait_until(lambda: tunnel in squid.targets(), timeout_s=2 * CUT_S, what="a tunnel through squid has ended")


def test_polls_that_a_proxy_cuts_are_shortened_until_they_succeed(workers: Mapping[str, Worker]) -> None:
    worker = workers["proxied"]
    learned = r"polls are cut after \d s"  # squid checks its timeouts every second or two
    wait_until(lambda: re.search(learned, worker.log.read_text()), timeout_s=5 * CUT_S, what="the worker learns")

    def contact() -> float:
        return float(json.loads((worker.state / "status.json").read_bytes())["contact_at"] or 0)

    before = contact()
    wait_until(lambda: contact() > before, timeout_s=2 * CUT_S, what="a poll is answered")
    assert worker.status()["trouble"] == ""


def test_polls_below_the_read_timeout_of_nginx_stay_open_for_their_whole_time(
    workers: Mapping[str, Worker], nginx: Nginx
) -> None:
    def long_polls() -> list[float]:
        return [
            request.lasted_s for request in nginx.requests("below-path") if request.path.endswith(POLL) and request.lasted_s > 5
        ]

    wait_until(
        lambda: any(POLL_S - 1 < lasted < READ_TIMEOUT_S for lasted in long_polls()),
        timeout_s=2 * POLL_S,
        what="a long poll ends",
    )
    assert {request.status for request in nginx.requests("below-path")} <= {200, 201, 204, 404}
    assert "polls are cut" not in workers["below-path"].log.read_text()


# Certificates that workers are bound to


def test_a_worker_is_bound_to_its_client_certificate(central: Airflow, workers: Mapping[str, Worker]) -> None:
    row = central.remote_api("workers", "mutual")
    assert (row["certificate"], row["alarm"]) == ("CN=plant-7,O=Corp", "")


def test_a_renewed_certificate_of_the_same_name_is_accepted(
    central: Airflow, nginx: Nginx, workers: Mapping[str, Worker], corp: Authority
) -> None:
    corp.issue("plant-7")
    workers["mutual"].detach()
    workers["mutual"].start()
    assert central.remote_api("workers", "mutual")["alarm"] == ""


def test_a_stolen_credential_is_refused_with_another_certificate(
    central: Airflow, nginx: Nginx, workers: Mapping[str, Worker], corp: Authority
) -> None:
    credential = json.loads((workers["mutual"].state / "credential.json").read_bytes())["credential"]
    context = ssl.create_default_context(cafile=str(corp.file))
    context.load_cert_chain(corp.issue("plant-8"))
    headers = {"authorization": f"Bearer {credential}", "airflow-remote-protocol": "1.0", SUBJECT_HEADER: "CN=plant-7,O=Corp"}
    answer = httpx.get(f"{nginx.url('mutual')}/remote/v1/ping", headers=headers, verify=context, trust_env=False)
    assert answer.status_code == 403 and answer.json()["code"] == "wrong-certificate", answer.text
    assert "CN=plant-8,O=Corp" in central.remote_api("workers", "mutual")["alarm"]
    assert workers["mutual"].is_serving(), "the worker itself is not disturbed"
    entries = central.remote_api("audit", kind="certificate", worker="mutual")
    assert any("refused" in entry["detail"] and "CN=plant-8,O=Corp" in entry["detail"] for entry in entries)
