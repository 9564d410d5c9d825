"""A credential ends, and is replaced without a moment in which none is good."""

from __future__ import annotations

from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll
from airflow_remote_protocol.conformance.central import PROMPT_S, CentralUnderTest
from airflow_remote_protocol.conformance.insist import refused, succeeded
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import PollReply, Pong


def check_a_session_tells_the_life_of_its_credential(central: CentralUnderTest) -> None:
    session = Caller.enrol(central).open_session()
    assert session.credential_life_s > 0, "a credential ends some day"
    assert 0 <= session.credential_age_s < 60, (
        f"the credential was made just now, its age is said to be {session.credential_age_s}"
    )


def check_the_old_credential_is_good_until_the_new_one_was_used(central: CentralUnderTest) -> None:
    old = Caller.at_work(central)
    new = old.next_credential()
    assert new.credential != old.credential, "a new credential is another one"
    succeeded(old.ask_poll(), PollReply)
    succeeded(new.call("GET", "ping"), Pong)
    succeeded(new.ask_poll(), PollReply)


def check_a_lost_next_credential_may_be_asked_for_again(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    lost, found = caller.next_credential(), caller.next_credential()
    assert lost.credential != found.credential, "each answer has a credential of its own"
    succeeded(found.call("GET", "ping"), Pong)
    refused(lost.call("GET", "ping"), ProblemCode.UNAUTHORIZED)
    succeeded(found.ask_poll(), PollReply)


def check_what_left_before_the_credential_was_replaced_is_taken(central: CentralUnderTest) -> None:
    old = Caller.at_work(central)
    new = old.next_credential()
    succeeded(new.call("GET", "ping"), Pong)
    succeeded(old.call("GET", "ping"), Pong)
    refused(old.call("POST", "credential"), ProblemCode.BUSY)
    assert not central.is_flagged(old.name), "a request that was late is no alarm"


def check_who_uses_a_replaced_credential_is_refused_and_flagged(central: CentralUnderTest) -> None:
    old = Caller.at_work(central)
    new = old.next_credential()
    succeeded(new.call("GET", "ping"), Pong)
    central.pass_handover(old.name)
    for response in old.call_all_without_a_job():
        refused(response, ProblemCode.UNAUTHORIZED)
    assert central.is_flagged(old.name), "somebody has a copy of a credential, and nobody is told"
    succeeded(new.ask_poll(), PollReply)


def check_an_expired_credential_is_refused_as_such(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    central.expire_credential(caller.name)
    for response in caller.call_all_without_a_job():
        refused(response, ProblemCode.EXPIRED)


def check_a_wish_for_a_new_credential_is_told_until_it_is_used(central: CentralUnderTest) -> None:
    caller = Caller.at_work(central)
    parked = ParkedPoll(caller)
    central.ask_to_rotate(caller.name)
    intent = parked.replies_within(PROMPT_S, "its credential is to be replaced").intent
    assert intent is not None and intent.rotate, f"the reply should ask for a new credential, it says {intent}"
    assert caller.open_session().intent.rotate, "a session that is opened meanwhile must be told too"
    new = caller.next_credential()
    assert not new.open_session().intent.rotate, "the wish has come true"
