"""The channels that deliver incidents: a webhook, and Airflow's notifiers. Both come from central's own configuration.

What is delivered is data. A notifier's templates are those of the configuration; they are rendered once, with the incidents as
values, so a text that names a worker is never a template itself.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol

from airflow_remote_provider.ledger.incidents import BEGUN, IncidentEvent
from airflow_remote_provider.settings import BadSetting, Settings

TIMEOUT_S = 10.0
"""Of each step of a call of the webhook."""
MOST_CHANNELS = 10


class NotDelivered(Exception):
    """A channel refused, or did not answer; the text contains no address and no secret."""


class Channel(Protocol):
    @property
    def name(self) -> str: ...

    def deliver(self, events: Sequence[IncidentEvent]) -> None:
        """Deliver, in a thread that may block.

        Raises:
            Exception: any; the delivery is repeated later.
        """


@dataclass(frozen=True)
class Webhook:
    """Sends JSON to a URL by POST. Follows no redirect."""

    url: str
    name: str = "webhook"

    def deliver(self, events: Sequence[IncidentEvent]) -> None:
        import httpx

        body = {"version": 1, "message": message_of(events), "incidents": [plain(event) for event in events]}
        try:
            with (
                httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client,
                client.stream("POST", self.url, json=body) as answer,
            ):
                status = answer.status_code  # the body of the answer is not read
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotDelivered(type(error).__name__) from None  # its text may contain the URL, which may contain a secret
        if not 200 <= status < 300:
            raise NotDelivered(f"it answered with status {status}")


@dataclass(frozen=True)
class Notifier:
    """Calls a notifier of Airflow."""

    name: str
    classpath: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def deliver(self, events: Sequence[IncidentEvent]) -> None:
        from airflow.sdk import BaseNotifier
        from airflow.sdk.module_loading import import_string

        made = import_string(self.classpath)
        if not (isinstance(made, type) and issubclass(made, BaseNotifier)):
            raise NotDelivered(f"{self.classpath} is not a notifier: no subclass of BaseNotifier")
        # A new one each time: rendering replaces its templates by their results, which must not be rendered again.
        notifier = made(**copy.deepcopy(dict(self.kwargs)))
        notifier({"message": message_of(events), "incidents": [plain(event) for event in events]})


def message_of(events: Sequence[IncidentEvent]) -> str:
    """Return one line for each event."""
    return "\n".join(
        f"Remote Executor: {event.text}" if event.event == BEGUN else f"Remote Executor: recovered: {event.text}"
        for event in events
    )


def plain(event: IncidentEvent) -> dict[str, Any]:
    """Return an event as JSON has it."""
    values = asdict(event)
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def channels_of(settings: Settings) -> list[Channel]:
    """Return the configured channels. Nothing is imported or called yet.

    Raises:
        BadSetting: an option has an invalid value.
    """
    found: list[Channel] = []
    if settings.alert_webhook:
        if not settings.alert_webhook.startswith(("http://", "https://")):
            raise BadSetting("[remote] alert_webhook is not a URL that begins with https:// or http://; set one, or nothing")
        found.append(Webhook(settings.alert_webhook))
    for number, one in enumerate(_listed(settings.notifiers)):
        classpath, kwargs = one.get("classpath"), one.get("kwargs", {})
        if not isinstance(classpath, str) or not isinstance(kwargs, dict) or one.keys() - {"classpath", "kwargs"}:
            raise _bad_notifiers(f"item {number} is not of this form")
        found.append(Notifier(f"{number} {classpath}"[:250], classpath, kwargs))
    return found


def _listed(text: str) -> list[dict[str, Any]]:
    if not text:
        return []
    try:
        listed = json.loads(text)
    except ValueError:
        raise _bad_notifiers("it is not JSON") from None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise _bad_notifiers("it is not a list of objects")
    if len(listed) > MOST_CHANNELS:
        raise _bad_notifiers(f"it has more than {MOST_CHANNELS} items")
    return listed


def _bad_notifiers(why: str) -> BadSetting:
    form = '[{"classpath": "package.module.Class", "kwargs": {…}}]'
    return BadSetting(f"[remote] notifiers: {why}; write a JSON list of the form {form}")
