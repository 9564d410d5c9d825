"""Central's settings for tasks: sent with the session, and with the next reply to a worker that has others."""

from __future__ import annotations

import time

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.central import CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message
from airflow_remote_protocol.messages import PollReply
from airflow_remote_protocol.task_settings import filter_usable


def check_a_session_sends_settings_that_a_worker_can_use(central: CentralUnderTest) -> None:
    settings = Caller.enrol(central).open_session().task_settings
    assert settings is not None and settings.revision, "a central of this version sends the settings of tasks"
    refused = settings.values.keys() - filter_usable(settings.values).keys()
    assert not refused, f"not on the list, or with values that no worker accepts: {refused}"


def check_settings_are_sent_again_only_to_a_worker_with_others(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    assert caller.session is not None and caller.session.task_settings is not None
    ours = caller.session.task_settings
    for known, expected in ((ours.revision, None), ("an older one", ours), ("", ours), (None, None)):
        asked_at = time.monotonic()
        reply = expect_message(caller.ask_poll(wait_s=0.3, task_settings=known), PollReply)
        assert reply.task_settings == expected, f"a worker that has {known!r} got {reply.task_settings}"
        assert time.monotonic() - asked_at >= 0.25, (
            "settings alone must not end a poll: with two centrals that differ, polls would end at once for ever"
        )
