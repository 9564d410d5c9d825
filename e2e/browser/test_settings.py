"""Topic suite: the settings of workers and queues that managers change in dialogs, and their effect in the ledger."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

from .conftest import OpenPage, serious_problems

OWN_QUEUE = "browser-policies"
"""A queue that no other test uses, so that a remaining policy disturbs no test."""


def _set(page: Page, action: str, label: str, value: str) -> None:
    page.get_by_role("button", name=action).click()
    page.get_by_role("textbox", name=label).fill(value)
    page.get_by_role("dialog").get_by_role("button", name=action).click()


def test_a_workers_queues_labels_bundles_and_slots_are_set(central: Airflow, open_page: OpenPage, worker: Worker) -> None:
    page = open_page("op", f"?worker={worker.name}")
    page.get_by_role("button", name="Set queues").click()
    expect(page.get_by_role("textbox", name="Queues")).to_have_value("default")
    page.get_by_role("button", name="Cancel").click()
    _set(page, "Set queues", "Queues", "default, ovens")
    _set(page, "Set labels", "Labels", "site=kiel")
    _set(page, "Set bundles", "Names of Dag bundles", "dags-*")
    _set(page, "Limit slots", "Slot limit", "3")
    for text in ("ovens", "site=kiel", "dags-*", "0/3"):
        expect(page.get_by_text(text, exact=True)).to_be_visible()
    row = central.remote_api("workers", worker.name)
    assert (row["queues"], row["labels"]) == (["default", "ovens"], {"site": "kiel"})
    assert (row["bundles"], row["slots_limit"]) == (["dags-*"], 3)
    _set(page, "Set queues", "Queues", "default")
    _set(page, "Set labels", "Labels", "")
    _set(page, "Set bundles", "Names of Dag bundles", "")
    _set(page, "Limit slots", "Slot limit", "")
    expect(page.get_by_text("0/4", exact=True)).to_be_visible()
    row = central.remote_api("workers", worker.name)
    assert (row["queues"], row["labels"], row["bundles"], row["slots_limit"]) == (["default"], {}, None, None)


def test_the_dialog_shows_why_a_value_is_refused(open_page: OpenPage, worker: Worker) -> None:
    page = open_page("op", f"?worker={worker.name}")
    _set(page, "Set queues", "Queues", " ")
    expect(page.get_by_role("alert")).to_contain_text("Name at least one queue")
    page.get_by_role("textbox", name="Queues").fill("q" * 300)
    page.get_by_role("dialog").get_by_role("button", name="Set queues").click()
    expect(page.get_by_role("alert")).to_contain_text("256 characters")


def test_a_queues_policy_is_changed(central: Airflow, open_page: OpenPage) -> None:
    page = open_page("op", f"?tab=queues&about={OWN_QUEUE}")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("nothing", exact=True)).to_have_count(9)
    dialog.get_by_label("Kind").select_option(label="Variables")
    dialog.get_by_label("Name").fill("plant_*")
    dialog.get_by_role("button", name="Allow").click()
    expect(dialog.get_by_text("plant_*", exact=True)).to_be_visible()
    dialog.get_by_label("Access that nothing grants").select_option(label="allowed and recorded")
    expect(dialog.get_by_text("Last changed by op")).to_be_visible()
    wait_until(lambda: _policy(central) == ("audit", ["plant_*"]), timeout_s=20, what="central has the mode")
    dialog.get_by_label("Access that nothing grants").select_option(label="denied")
    dialog.get_by_role("button", name="Remove plant_*").click()
    expect(dialog.get_by_text("nothing", exact=True)).to_have_count(9)
    wait_until(lambda: _policy(central) == ("enforce", []), timeout_s=20, what="central has taken it back")


def _policy(central: Airflow) -> tuple[str, list[str]]:
    rows = central.client().get("/remote/ui/v1/policies").json()["items"]
    return next((row["mode"], row["variables"]) for row in rows if row["queue"] == OWN_QUEUE)


def test_a_queues_rule_is_set_and_unset(central: Airflow, open_page: OpenPage, worker: Worker) -> None:
    page = open_page("op", "?tab=queues")
    page.get_by_role("row", name="default").get_by_role("button", name="Rules and policy").click()
    assert "about=default" in page.url
    dialog = page.get_by_role("dialog")
    for wrong, why in (("soon", "Enter a number of seconds"), ("1", "greater than or equal to 30")):
        dialog.get_by_label("Lost after").fill(wrong)
        dialog.get_by_role("button", name="Set rules").click()
        expect(dialog.get_by_role("alert")).to_contain_text(why)
    dialog.get_by_label("Lost after").fill("600")
    dialog.get_by_role("button", name="Set rules").click()
    dialog.get_by_role("button", name="Reset all rules").click()
    expect(dialog.get_by_role("button", name="Reset all rules")).to_have_count(0)
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("row", name="default")).to_contain_text("as configured")
    audit = [entry["detail"] for entry in central.remote_api("audit", kind="action")]
    assert "set for the queue default: lost after 600 s" in audit and "unset the rules of the queue default" in audit


def test_a_viewer_sees_a_policy_and_can_not_change_it(open_page: OpenPage, worker: Worker) -> None:
    page = open_page("viewer", "?tab=queues&about=*")
    expect(page.get_by_role("dialog").get_by_text("Connections")).to_be_visible()
    assert [button.inner_text() for button in page.get_by_role("dialog").get_by_role("button").all()] == [""]
    page.goto(page.url.split("?")[0] + f"?worker={worker.name}")
    expect(page.get_by_role("heading", name=worker.name)).to_be_visible()
    expect(page.get_by_role("button", name="Set queues")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_dialogs_have_no_serious_accessibility_problems(open_page: OpenPage, worker: Worker, scheme: str) -> None:
    page = open_page("op", f"?worker={worker.name}", scheme=scheme)
    for action in ("Set queues", "Set labels", "Set bundles", "Limit slots"):
        page.get_by_role("button", name=action).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert serious_problems(page, "[role=dialog]") == []
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
    page = open_page("op", f"?tab=queues&about={OWN_QUEUE}", scheme=scheme)
    page.get_by_role("dialog").get_by_label("Name").fill("plant_*")
    page.get_by_role("dialog").get_by_role("button", name="Allow").click()
    expect(page.get_by_role("button", name="Remove plant_*")).to_be_visible()
    assert serious_problems(page, "[role=dialog]") == []
    page.get_by_role("button", name="Remove plant_*").click()
    expect(page.get_by_role("button", name="Remove plant_*")).to_have_count(0)
