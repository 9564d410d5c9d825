"""Topic suite, promise 6: for every request of the protocol, central applies it and its reply is lost, once or three times.

Nothing is lost or doubled.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.faults.conftest import enrolment_token
from testkit.durable_run import DurableRun
from testkit.network.fault_proxy import ANY, FaultProxy
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.site import Site
from testkit.worker import Worker

TIMES = 3

REQUESTS = {
    "session": ("POST", "/session$"),
    "run (the acceptance)": ("PATCH", "/execution/task-instances/[^/]+/run$"),
    "an XCom": ("POST", "/execution/xcoms/"),
    "rendered fields": ("PUT", "/execution/task-instances/[^/]+/rtif$"),
    "a terminal state": ("PATCH", "/execution/task-instances/[^/]+/state$"),
    "log": ("POST", "/log[?]"),
    "report": ("POST", "/report$"),
}


@pytest.mark.parametrize("times", [1, TIMES])
def test_lost_replies_about_a_job_change_nothing(site: Site, tmp_path: Path, times: int) -> None:
    """6. `session`, `run`, XCom, rendered fields, state, log, report: applied, but the worker received no reply."""
    rules = {what: site.network.drop_replies(method, path, count=times) for what, (method, path) in REQUESTS.items()}
    site.worker.kill()
    site.worker.start()
    durable_run = DurableRun.begin(site, tmp_path)
    durable_run.makes_progress()
    durable_run.assert_nothing_is_lost_or_doubled()
    assert {what: rule.hits for what, rule in rules.items()} == dict.fromkeys(REQUESTS, times)


def test_a_lost_offer_is_repeated(site: Site, tmp_path: Path) -> None:
    """6. `poll`: the lost reply contained offers. Each is repeated after its deadline; the task runs once, on its first try."""
    durable_run: list[DurableRun] = []

    def offers() -> bool:
        return any(job["state"] == "offered" for one in durable_run for job in one.jobs())

    lost = site.network.drop_replies("POST", "/poll$", count=ANY, when=offers)
    polls = site.network.count("POST", "/poll$")
    wait_until(
        lambda: site.network.count("POST", "/poll$") > polls, timeout_s=60, what="a poll is parked that the rule applies to"
    )
    durable_run.append(DurableRun.begin(site, tmp_path, wait=False))
    unanswered: set[str] = set()

    def each_is_back() -> bool:
        unanswered.update(job["id"] for job in durable_run[0].jobs() if job["state"] == "queued" and job["epoch"] >= TIMES)
        return len(unanswered) == 2

    wait_until(each_is_back, timeout_s=60, what=f"each job was offered {TIMES} times without success", every_s=0.05)
    site.network.forget_rules()
    assert lost.hits  # one reply can contain both offers
    durable_run[0].wait_until_it_runs()
    assert all(job["epoch"] > TIMES for job in durable_run[0].jobs())
    durable_run[0].assert_nothing_is_lost_or_doubled()


def test_a_lost_reply_to_a_callbacks_acceptance(site: Site) -> None:
    """6. `accept`: a callback runs once."""
    lost = site.network.drop_replies("POST", "/accept$", count=TIMES)
    central = site.central
    run = central.trigger("late_refused")
    assert central.wait_for_run("late_refused", run) == "success"
    job = _ended_callback(central, "late_refused")
    assert lost.hits == TIMES
    assert job["state"] == "succeeded"
    [log] = (central.log_folder / "executor_callbacks/late_refused").rglob(str(job["id"]))
    assert log.read_text().count("it is late") == 1


def test_a_lost_reply_to_a_decline(site: Site, tmp_path: Path) -> None:
    """6. `decline`: a declined job is offered again, and runs once.

    A delayed offer that reaches a draining worker is declined.
    """
    before = DurableRun.begin(site, tmp_path / "before")  # keeps the draining worker alive for a moment
    polls = site.network.count("POST", "/poll$")
    wait_until(lambda: site.network.count("POST", "/poll$") > polls, timeout_s=60, what="a poll is fresh", every_s=0.02)
    site.network.stall()
    lost = site.network.drop_replies("POST", "/decline$", count=TIMES)
    after = DurableRun.begin(site, tmp_path / "after", wait=False)
    wait_until(
        lambda: any(job["state"] == "offered" for job in after.jobs()), timeout_s=30, what="a job is offered", every_s=0.05
    )
    site.worker.drain(wait=False)
    wait_until(lambda: "draining (" in site.worker.tail(2), timeout_s=60, what="the worker drains", every_s=0.02)
    site.network.heal()
    site.worker.wait()
    assert lost.hits >= 1
    site.network.forget_rules()
    site.worker.start()
    after.wait_until_it_runs()
    before.assert_nothing_is_lost_or_doubled()
    after.assert_nothing_is_lost_or_doubled()


def test_leaving_succeeds_although_the_reply_is_lost(impatient: Airflow, tmp_path: Path) -> None:
    """6. `leave`: central has revoked the credential; the repeated request detects that and succeeds."""
    with FaultProxy(impatient.url) as network:
        worker = Worker(tmp_path, name="leaver", central=network.url, token=enrolment_token(impatient, "leaver"), bundles={})
        worker.join()
        lost = network.drop_replies("POST", "/leave$", count=TIMES)
        assert "has left" in worker.run("leave")
        assert lost.hits == TIMES
        assert not (worker.state / "credential.json").exists()
    [row] = impatient.query("SELECT revoked_at FROM remote_worker WHERE name = 'leaver'")
    assert row["revoked_at"]


def test_a_lost_reply_to_the_enrolment_is_reported_and_can_be_corrected(impatient: Airflow, tmp_path: Path) -> None:
    """6. `enrol`: the credential is shown once, so it is lost with the reply. The token is used up and central lists the worker.

    An administrator can correct that: after the worker's removal a new token enrols it under the same name.
    """
    with FaultProxy(impatient.url) as network:
        network.drop_replies("POST", "/enrol$", count=1)
        worker = Worker(tmp_path, name="newcomer", central=network.url, token=enrolment_token(impatient, "newcomer"), bundles={})
        with pytest.raises(RuntimeError, match=r"can't be reached|was cut"):
            worker.join()
        with pytest.raises(RuntimeError, match="ask an administrator for a new one"):
            worker.join()
        again = Worker(tmp_path, name="newcomer", central=network.url, token=enrolment_token(impatient, "newcomer"), bundles={})
        with pytest.raises(RuntimeError, match="airflow remote workers remove newcomer"):
            again.join()
        impatient.remote_change("DELETE", "workers", "newcomer")
        again.join()


def _ended_callback(central: Airflow, dag_id: str) -> dict[str, object]:
    def ended() -> list[dict[str, object]]:
        sql = "SELECT * FROM remote_job WHERE kind = 'callback' AND dag_id = :dag AND ended_at IS NOT NULL"
        return central.query(sql, dag=dag_id)

    wait_until(ended, timeout_s=60, what="the callback ends", every_s=0.3)
    [job] = ended()
    return job
