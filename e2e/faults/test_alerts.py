"""Topic suite: a worker that ends is an incident, delivered by the webhook and by a notifier of Airflow; its return, too."""

from __future__ import annotations

from pathlib import Path

from e2e.faults.conftest import SiteNamed
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.webhook import WebhookReceiver


def test_a_worker_that_ends_is_an_incident_and_its_return_a_recovery(
    impatient: Airflow, site_named: SiteNamed, incident_receiver: WebhookReceiver, incident_file: Path
) -> None:
    site = site_named("watched")
    wait_until(site.is_connected, timeout_s=60, what="the worker serves")
    site.worker.kill()
    events = [("begun", "worker-silent", site.name)]
    wait_until(lambda: _of(site.name, incident_receiver) == events, timeout_s=120, what="the webhook receives the incident")
    wait_until(lambda: f"begun {site.name}" in _lines(incident_file), timeout_s=60, what="the notifier has written it")
    (shown,) = [one for one in impatient.remote_api("incidents") if one["subject"] == site.name]
    acknowledged = impatient.remote_change("POST", "incidents", shown["id"], "acknowledge")
    assert acknowledged["acknowledged_by"]
    site.worker.start()
    events.append(("recovered", "worker-silent", site.name))
    wait_until(lambda: _of(site.name, incident_receiver) == events, timeout_s=120, what="the webhook receives the recovery")
    wait_until(lambda: f"recovered {site.name}" in _lines(incident_file), timeout_s=60, what="the notifier has written it")


def _of(name: str, receiver: WebhookReceiver) -> list[tuple[str, str, str]]:
    return [event for event in receiver.events() if event[2] == name]


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
