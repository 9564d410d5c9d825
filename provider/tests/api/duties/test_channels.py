"""The webhook and Airflow's notifiers: what they send, what they refuse, and that nothing of a worker is a template."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, ClassVar

import pytest
from airflow.sdk import BaseNotifier
from airflow_remote_provider.api.duties.channels import NotDelivered, Notifier, Webhook, channels_of
from airflow_remote_provider.ledger.incidents import IncidentEvent
from airflow_remote_provider.settings import BadSetting, parse

from testkit.servers.webhook import WebhookReceiver

TEMPLATE = "{{ 7 * 7 }}"
BEGUN_AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def event(text: str = "the worker edge is silent", name: str = "begun") -> IncidentEvent:
    return IncidentEvent(name, "id-1", "worker-silent", "edge", None, text, BEGUN_AT, BEGUN_AT if name == "recovered" else None)


class Recording(BaseNotifier):  # type: ignore[misc]
    """Stores its rendered fields."""

    template_fields = ("text", "first")
    sent: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, text: str = "{{ message }}", first: str = "{{ incidents[0].subject }}") -> None:
        super().__init__()
        self.text = text
        self.first = first

    def notify(self, context: Any) -> None:
        self.sent.append((self.text, self.first))


class Broken(BaseNotifier):  # type: ignore[misc]
    def notify(self, context: Any) -> None:
        raise RuntimeError("no such chat")


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _sent() -> None:
    Recording.sent.clear()


def notifier(cls: type = Recording, **kwargs: Any) -> Notifier:
    return Notifier("0", f"{cls.__module__}.{cls.__qualname__}", kwargs)


def test_a_webhook_gets_json(receiver: WebhookReceiver) -> None:
    Webhook(receiver.url).deliver([event(), event(name="recovered")])
    (body,) = receiver.bodies
    assert body["version"] == 1
    assert body["message"].splitlines() == [
        "Remote Executor: the worker edge is silent",
        "Remote Executor: recovered: the worker edge is silent",
    ]
    assert body["incidents"][0] == {
        "event": "begun",
        "id": "id-1",
        "kind": "worker-silent",
        "subject": "edge",
        "team": None,
        "text": "the worker edge is silent",
        "begun_at": "2026-03-01T12:00:00+00:00",
        "recovered_at": None,
    }


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_is_a_failure_without_its_url(receiver: WebhookReceiver, status: int) -> None:
    receiver.status = status
    with pytest.raises(NotDelivered, match=str(status)) as failed:
        Webhook(receiver.url).deliver([event()])
    assert "s3cr3t" not in str(failed.value)


def test_a_webhook_that_does_not_answer_is_a_failure_without_its_url() -> None:
    with WebhookReceiver() as gone:
        url = gone.url
    with pytest.raises(NotDelivered) as failed:
        Webhook(url).deliver([event()])
    assert str(failed.value) == "ConnectError"


def test_a_notifier_renders_its_own_templates_with_the_incidents() -> None:
    notifier().deliver([event()])
    assert Recording.sent == [("Remote Executor: the worker edge is silent", "edge")]


def test_a_text_of_an_incident_is_never_rendered_also_not_at_the_next_delivery() -> None:
    channel = notifier()
    for _ in range(2):
        channel.deliver([event(TEMPLATE)])
    assert [text for text, _ in Recording.sent] == [f"Remote Executor: {TEMPLATE}"] * 2


def test_what_a_notifier_raises_is_a_failure() -> None:
    with pytest.raises(RuntimeError, match="no such chat"):
        notifier(Broken).deliver([event()])


@pytest.mark.parametrize("classpath", ["builtins.dict", "os.system"])
def test_only_notifiers_are_called(classpath: str) -> None:
    with pytest.raises(NotDelivered, match="no subclass of BaseNotifier"):
        Notifier("0", classpath).deliver([event()])


def test_channels_are_configured() -> None:
    notifiers = json.dumps([{"classpath": "a.B", "kwargs": {"to": "ops"}}, {"classpath": "a.B"}])
    found = channels_of(parse({"alert_webhook": "https://central.example/hook", "notifiers": notifiers}))
    assert [one.name for one in found] == ["webhook", "0 a.B", "1 a.B"]
    assert channels_of(parse({})) == []


@pytest.mark.parametrize(
    "options",
    [
        {"alert_webhook": "ftp://central.example"},
        {"notifiers": "a.B"},
        {"notifiers": '{"classpath": "a.B"}'},
        {"notifiers": '[{"kwargs": {}}]'},
        {"notifiers": '[{"classpath": "a.B", "kwargs": []}]'},
        {"notifiers": '[{"classpath": "a.B", "args": []}]'},
        {"notifiers": json.dumps([{"classpath": "a.B"}] * 11)},
    ],
    ids=str,
)
def test_a_channel_that_is_misconfigured_is_explained(options: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match=r"\[remote\] (alert_webhook|notifiers)"):
        channels_of(parse(options))
