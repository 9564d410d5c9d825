"""A credential expires, and is replaced without a moment in which neither is valid."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import PollReply, Pong


def check_a_session_reports_the_lifetime_of_its_credential(central: CentralUnderTest) -> None:
    session = Caller.enrol(central).open_session()
    assert session.credential_life_s > 0, "a credential must expire"
    assert 0 <= session.credential_age_s < 60, (
        f"the credential was made just now, central reports an age of {session.credential_age_s}"
    )


def check_the_old_credential_works_until_the_new_one_is_used(central: CentralUnderTest) -> None:
    old = Caller.connect(central)
    new = old.next_credential()
    assert new.credential != old.credential, "the next credential must differ from the old one"
    expect_message(old.ask_poll(), PollReply)
    expect_message(new.call("GET", "ping"), Pong)
    expect_message(new.ask_poll(), PollReply)


def check_a_next_credential_that_was_lost_can_be_requested_again(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    lost, found = caller.next_credential(), caller.next_credential()
    assert lost.credential != found.credential, "each answer must have a new credential"
    expect_message(found.call("GET", "ping"), Pong)
    expect_refusal(lost.call("GET", "ping"), ProblemCode.UNAUTHORIZED)
    expect_message(found.ask_poll(), PollReply)


def check_a_late_request_with_the_old_credential_is_accepted(central: CentralUnderTest) -> None:
    old = Caller.connect(central)
    new = old.next_credential()
    expect_message(new.call("GET", "ping"), Pong)
    expect_message(old.call("GET", "ping"), Pong)
    expect_refusal(old.call("POST", "credential"), ProblemCode.BUSY)
    assert not central.is_flagged(old.name), "a late request must not raise an alarm"


def check_use_of_a_replaced_credential_is_refused_and_flagged(central: CentralUnderTest) -> None:
    old = Caller.connect(central)
    new = old.next_credential()
    expect_message(new.call("GET", "ping"), Pong)
    central.pass_handover(old.name)
    for response in old.make_all_calls_without_a_job():
        expect_refusal(response, ProblemCode.UNAUTHORIZED)
    assert central.is_flagged(old.name), "a copy of the credential is in use, and administrators must see it"
    expect_message(new.ask_poll(), PollReply)


def check_an_expired_credential_is_refused_as_expired(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    central.expire_credential(caller.name)
    for response in caller.make_all_calls_without_a_job():
        expect_refusal(response, ProblemCode.EXPIRED)


def check_a_request_to_rotate_is_repeated_until_the_new_credential_is_used(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    parked = ParkedPoll(caller)
    central.ask_to_rotate(caller.name)
    intent = parked.replies_within(PROMPT_S, "an administrator requested a new credential").intent
    assert intent is not None and intent.rotate, f"the reply should ask for a new credential, it says {intent}"
    assert caller.open_session().intent.rotate, "a session that is opened meanwhile must repeat it"
    new = caller.next_credential()
    assert not new.open_session().intent.rotate, "the request is fulfilled"
