"""Runtimes from central over HTTP: what a worker gets, what a poll costs, and what a stolen credential can't do."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from testkit.central import ServedCentral  # isort: skip
from testkit.ledger import make_engine, record_statements, use_ledger, worker_row  # isort: skip

from airflow_remote_protocol.conformance.caller import EVERYTHING, Caller, ParkedPoll
from airflow_remote_protocol.conformance.central import PLATFORM
from airflow_remote_protocol.conformance.expect import expect_message, expect_no_content, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import HeldRuntime, Inventory, PollReply, RuntimePhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import held_runtimes, rollouts, runtimes

from testkit.fixtures import POSTGRES

TAKES = (*EVERYTHING, "runtimes")
READY, FAILED = RuntimePhase.READY, RuntimePhase.FAILED


@pytest.fixture(scope="module", params=["sqlite", POSTGRES])
def central(
    request: pytest.FixtureRequest, new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedCentral]:
    engine = make_engine(new_database(request.param))
    with use_ledger(engine, tmp_path_factory.mktemp("logs")), ServedCentral() as served:
        yield served
    engine.dispose()


def _files() -> dict[str, bytes]:
    return {"runtime.json": uuid.uuid4().bytes}


def _connect(central: ServedCentral, *, queue: str = "") -> Caller:
    caller = Caller.enrol(central, [queue] if queue else [])
    caller.open_session(capabilities=TAKES, platform=PLATFORM)
    return caller


def _revision(caller: Caller) -> str:
    assert caller.session is not None and caller.session.runtimes is not None
    return caller.session.runtimes.revision


def _report(caller: Caller, tree: str, phase: RuntimePhase, detail: str = "") -> None:
    expect_no_content(caller.call("POST", "inventory", Inventory([], [HeldRuntime(tree, phase, detail=detail)])))


def _halted(caller: Caller) -> str:
    with compat.transaction() as session:
        name = runtimes.load_plan(session).name_for(caller.queue)
        record = runtimes.get(session, name)
    assert record is not None
    return record.halted


def _statements_of_polls(caller: Caller, revision: str | None, polls: int = 20) -> list[str]:
    """Return the statements about runtimes while *caller* polls, without the dispatcher's, which asks each tick what changed."""
    with record_statements(compat.engine()) as statements:
        for _ in range(polls):
            reply = expect_message(caller.ask_poll(wait_s=0.0, runtimes=revision), PollReply)
            assert reply.runtimes is None
    return [one for one in statements if "remote_runtime" in one and "UNION ALL" not in one]


def test_a_poll_takes_no_statement_for_runtimes(central: ServedCentral, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_runtimes, "judge_again", lambda session, judged: judged)
    site = Caller.connect(central)
    assert _statements_of_polls(site, None) == []
    caller = Caller.enrol(central)
    central.roll_runtime(caller.queue, _files())
    caller.open_session(capabilities=TAKES, platform=PLATFORM)
    expect_message(caller.ask_poll(runtimes=_revision(caller)), PollReply)
    assert _statements_of_polls(caller, _revision(caller)) == []


def test_a_changed_list_ends_a_parked_poll_within_two_seconds(central: ServedCentral) -> None:
    caller = _connect(central)
    parked = ParkedPoll(caller, runtimes=_revision(caller))
    began = time.monotonic()
    digest = central.roll_runtime(caller.queue, _files())
    reply = parked.replies_within(3.0, "another runtime is wanted")
    assert time.monotonic() - began < 3.0
    assert reply.runtimes is not None and reply.runtimes.wanted[0].tree.digest == digest


def test_a_worker_can_t_fetch_the_runtime_of_others_nor_one_that_is_over(central: ServedCentral) -> None:
    caller, other = _connect(central), _connect(central)
    theirs = central.roll_runtime(other.queue, _files())
    first = central.roll_runtime(caller.queue, _files())
    assert caller.call("GET", f"trees/{first}/pack").status == 200
    second = central.roll_runtime(caller.queue, _files())
    assert caller.call("GET", f"trees/{second}/pack").status == 200
    for digest in (theirs, first, "0" * 64):
        expect_refusal(caller.call("GET", f"trees/{digest}/pack"), ProblemCode.NOT_FOUND)
        _report(caller, digest, READY)  # to claim that one has it changes nothing
        expect_refusal(caller.call("GET", f"trees/{digest}/pack"), ProblemCode.NOT_FOUND)
    caller.open_session(capabilities=EVERYTHING, platform=PLATFORM)
    expect_refusal(caller.call("GET", f"trees/{second}/pack"), ProblemCode.NOT_FOUND)


def test_a_worker_of_another_platform_can_t_fetch_it(central: ServedCentral) -> None:
    caller = Caller.enrol(central)
    digest = central.roll_runtime(caller.queue, _files())
    caller.open_session(capabilities=TAKES, platform="cp311-linux-musl-x86_64")
    assert caller.session is not None and caller.session.runtimes is not None and caller.session.runtimes.wanted == []
    expect_refusal(caller.call("GET", f"trees/{digest}/pack"), ProblemCode.NOT_FOUND)


def test_a_worker_can_t_halt_a_rollout_that_is_not_for_it(central: ServedCentral) -> None:
    caller = _connect(central)
    central.roll_runtime(caller.queue, _files())
    new = central.roll_runtime(caller.queue, _files())
    stranger = _connect(central)
    _report(stranger, new, FAILED, "I say so")
    site = Caller.connect(central, [caller.queue])
    _report(site, new, FAILED, "I say so")
    assert _halted(caller) == ""
    with compat.transaction() as session:
        rollouts.roll(session, rollouts.of_runtime(runtimes.load_plan(session).name_for(caller.queue)), percent=0, by="ann")
    _report(caller, new, FAILED, "I say so")
    assert _halted(caller) == ""


def test_a_halt_names_its_worker_and_its_text_is_harmless(central: ServedCentral) -> None:
    caller = _connect(central)
    first = central.roll_runtime(caller.queue, _files())
    new = central.roll_runtime(caller.queue, _files())
    _report(caller, new, FAILED, "\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}gone\n" + "x" * 1900)
    halted = _halted(caller)
    assert halted.startswith(f"worker {caller.name}: ") and halted.isprintable() and len(halted) < 700
    other = _connect(central, queue=caller.queue)
    assert other.session is not None and other.session.runtimes is not None
    assert [ref.tree.digest for ref in other.session.runtimes.wanted] == [first]


def test_a_flood_of_inventories_is_limited_and_stores_only_known_runtimes(central: ServedCentral) -> None:
    caller = _connect(central)
    digest = central.roll_runtime(caller.queue, _files())
    held = [HeldRuntime(f"{n:064x}", READY, detail="x" * 2000) for n in range(49)] + [HeldRuntime(digest, READY)]
    answers = [caller.call("POST", "inventory", Inventory([], held)) for _ in range(60)]
    assert {answer.status for answer in answers} == {204, 503}
    assert caller.session is not None
    stored = worker_row(caller.session.worker_id).runtimes or []
    assert [one["tree"] for one in stored] == [digest]
    body = b'{"trees": [], "runtimes": [' + b" " * (600 * 1024) + b"]}"
    expect_refusal(_connect(central).call("POST", "inventory", body=body), ProblemCode.TOO_LARGE)
