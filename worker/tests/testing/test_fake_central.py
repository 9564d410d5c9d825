"""The fake central behaves as every central must, and its methods for tests work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

import httpx
import pytest
from airflow_remote_protocol import conformance
from airflow_remote_protocol.codec import decode
from airflow_remote_protocol.conformance.caller import Caller, ParkedPoll, enrol, held, unique
from airflow_remote_protocol.conformance.central import Response
from airflow_remote_protocol.conformance.expect import expect_message, expect_no_content, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Enrolled, Enrolment, JobPhase, LogAppended, Offer, Outcome, Pong, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import MARKER_HEADER, PROTOCOL_VERSION
from airflow_remote_worker.testing import FakeCentral
from airflow_remote_worker.testing.fake_central import Timing


class FakeCentralOverHttp(FakeCentral):
    """The fake with the method for HTTP requests that the conformance suite needs."""

    def __enter__(self) -> FakeCentralOverHttp:
        super().__enter__()
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.Client(base_url=f"{self.url}/remote/v1/", timeout=15, trust_env=False, limits=limits)
        return self

    def __exit__(self, *exception) -> None:
        self.client.close()
        super().__exit__(*exception)

    def request(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"") -> Response:
        response = self.client.request(method, path, headers=dict(headers), content=body)
        return Response(response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content)


@pytest.fixture(scope="module")
def conforming() -> Iterator[FakeCentralOverHttp]:
    with FakeCentralOverHttp(sub_path="/airflow") as central:
        yield central


@pytest.mark.parametrize("check", conformance.ALL, ids=conformance.sentence)
def test_the_fake_conforms(check: conformance.Check, conforming: FakeCentralOverHttp) -> None:
    check(conforming)


@pytest.fixture
def central() -> Iterator[FakeCentralOverHttp]:
    with FakeCentralOverHttp() as central:
        yield central


def _offered(central: FakeCentralOverHttp) -> tuple[Caller, Offer]:
    caller = Caller.connect(central)
    central.enqueue(caller.queue)
    return caller, caller.await_offer()


def test_it_refuses_connections_while_down_and_keeps_its_state(central: FakeCentralOverHttp) -> None:
    caller, offer = _offered(central)
    url = central.url
    central.go_down()
    with pytest.raises(httpx.ConnectError):
        caller.accept(offer)
    central.come_back()
    assert central.url == url
    expect_no_content(caller.accept(offer))


def test_going_down_cuts_waiting_polls(central: FakeCentralOverHttp) -> None:
    parked = ParkedPoll(Caller.connect(central), free_slots=1)
    central.go_down()
    with pytest.raises(httpx.TransportError):
        parked.ends_within(2, "central went down")


def test_a_proxys_answer_has_no_marker_and_changes_nothing(central: FakeCentralOverHttp) -> None:
    caller, offer = _offered(central)
    central.answer_like_a_proxy(502, b"<html>bad gateway</html>")
    response = central.client.post(f"jobs/{offer.job_id}/accept", headers={"authorization": f"Bearer {caller.credential}"})
    assert (response.status_code, response.content) == (502, b"<html>bad gateway</html>")
    assert MARKER_HEADER not in response.headers
    assert central.job(offer.job_id).state is JobState.OFFERED
    central.answer_as_central()
    expect_no_content(caller.accept(offer))


def test_a_dropped_reply_leaves_the_request_done(central: FakeCentralOverHttp) -> None:
    caller, offer = _offered(central)
    expect_no_content(caller.accept(offer))
    central.drop_next_reply("/log")
    with pytest.raises(httpx.RemoteProtocolError):
        caller.log(offer, 0, b"received, but not acknowledged\n")
    assert central.log_bytes(offer.job_id) == b"received, but not acknowledged\n"
    assert expect_message(caller.log(offer, 0, b"received, but not acknowledged\n"), LogAppended).size == 31


def test_an_offer_whose_poll_was_closed_goes_to_another_worker(central: FakeCentralOverHttp) -> None:
    queue = unique("queue")
    gone, there = Caller.connect(central, [queue]), Caller.connect(central, [queue])
    impatient = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {gone.credential}"}
    impatient["airflow-remote-session"] = gone.session_id
    with pytest.raises(httpx.ReadTimeout):
        central.client.post(
            "poll", headers=impatient, timeout=0.2, content=b'{"free_slots": 1, "intent_revision": 1, "wait_s": 9, "jobs": []}'
        )
    job_id = central.enqueue(queue)
    assert there.await_offer().job_id == job_id


def test_an_offer_expires_by_itself_unless_it_is_listed_as_preparing() -> None:
    with FakeCentralOverHttp(timing=Timing(offer_deadline_s=0.5, redelivery_s=0.0)) as central:
        caller, offer = _offered(central)
        listed_until = time.monotonic() + 1.0
        while time.monotonic() < listed_until:
            caller.poll(jobs=[held(offer, JobPhase.PREPARING)], wait_s=0.2)
        assert central.job_epoch(offer.job_id) == offer.epoch
        assert central.job_state(offer.job_id) == JobState.OFFERED.value
        again = caller.await_offer()
        assert (again.job_id, again.epoch) == (offer.job_id, offer.epoch + 1)


def test_a_report_about_a_lost_job_is_kept(central: FakeCentralOverHttp) -> None:
    caller, offer = _offered(central)
    expect_no_content(caller.accept(offer))
    central.lose_job(offer.job_id)
    expect_refusal(caller.report(offer, Outcome.FAILED, 3), ProblemCode.SUPERSEDED)
    late = central.job(offer.job_id).late_report
    assert late is not None and (late.outcome, late.exit_code) == (Outcome.FAILED, 3)


def test_a_stop_says_why(central: FakeCentralOverHttp) -> None:
    caller, offer = _offered(central)
    expect_no_content(caller.accept(offer))
    central.end_task(offer.job_id, reason=StopReason.CLEARED)
    [stop] = caller.poll(jobs=[held(offer)]).stops
    assert stop.reason is StopReason.CLEARED


def test_a_request_that_does_not_say_its_version_is_invalid(central: FakeCentralOverHttp) -> None:
    caller = Caller.enrol(central)
    response = central.client.get("ping", headers={"authorization": f"Bearer {caller.credential}"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid")


def test_every_request_is_recorded(central: FakeCentralOverHttp) -> None:
    caller = Caller.enrol(central)
    expect_message(caller.call("GET", "ping"), Pong)
    enrolling, ping = central.requests
    assert (enrolling.method, enrolling.path, enrolling.status) == ("POST", "enrol", 201)
    assert decode(Enrolment, enrolling.body).name == caller.name
    assert central.requests_to("ping") == [ping]


def test_waiting_for_a_state_ends_with_the_change_or_names_the_states_so_far(central: FakeCentralOverHttp) -> None:
    caller, offer = _offered(central)
    threading.Timer(0.1, lambda: caller.accept(offer)).start()
    central.wait_for_state(offer.job_id, JobState.RUNNING)
    with pytest.raises(TimeoutError, match="to be succeeded or failed; it went through queued, offered, running"):
        central.wait_for_state(offer.job_id, JobState.SUCCEEDED, JobState.FAILED, timeout_s=0.1)


def test_a_streamed_body_arrives_whole(central: FakeCentralOverHttp) -> None:
    caller, offer = _offered(central)
    headers = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {caller.credential}"}
    headers |= {"airflow-remote-session": caller.session_id, "airflow-remote-epoch": str(offer.epoch)}
    chunks = (chunk for chunk in (b"one\n", b"two\n"))
    assert central.client.post(f"jobs/{offer.job_id}/log?offset=0", headers=headers, content=chunks).json() == {"size": 8}
    assert central.log_bytes(offer.job_id) == b"one\ntwo\n"


def test_fifty_workers_may_wait_at_once(central: FakeCentralOverHttp) -> None:
    queue = unique("queue")
    token = central.enrolment_token([queue], uses=50)
    callers = []
    for number in range(50):
        enrolled = expect_message(enrol(central, token=token, name=f"worker-{number}"), Enrolled, status=201)
        callers.append(Caller(central, enrolled))
        callers[-1].open_session()
    replies: list[int] = []
    parked = [threading.Thread(target=lambda c=c: replies.append(len(c.poll(free_slots=1, wait_s=5).offers))) for c in callers]
    for thread in parked:
        thread.start()
    for _ in callers:
        central.enqueue(queue)
    for thread in parked:
        thread.join(15)
    assert sum(replies) == 50
