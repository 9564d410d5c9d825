"""The table of transitions: complete, without dead ends, and the same as in the document."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from airflow_remote_protocol.states import (
    ENDED,
    LEASED,
    MOVES,
    IllegalMove,
    JobEvent,
    JobState,
    advance,
    render_mermaid,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"


@pytest.mark.parametrize(("state", "event"), list(product(JobState, JobEvent)))
def test_every_pair_of_state_and_event_follows_the_table_or_is_illegal(state: JobState, event: JobEvent) -> None:
    if (state, event) in MOVES:
        assert advance(state, event) is MOVES[state, event]
    else:
        with pytest.raises(IllegalMove, match=f"a job that is {state.value} can't {event.value}"):
            advance(state, event)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_ended_state_has_no_moves(state: JobState) -> None:
    assert state.is_ended
    assert not [event for event in JobEvent if (state, event) in MOVES]


def test_a_state_without_moves_is_an_ended_one() -> None:
    assert {state for state in JobState if not any(state is a for a, _ in MOVES)} == ENDED


def test_every_state_can_be_reached_from_queued() -> None:
    reached = {JobState.QUEUED}
    for _ in JobState:
        reached |= {target for (state, _), target in MOVES.items() if state in reached}
    assert reached == set(JobState)


@pytest.mark.parametrize("state", sorted(set(JobState) - ENDED))
def test_from_every_other_state_an_end_can_be_reached(state: JobState) -> None:
    reached = {state}
    for _ in JobState:
        reached |= {target for (a, _), target in MOVES.items() if a in reached}
    assert reached & ENDED


def test_every_event_is_used() -> None:
    assert {event for _, event in MOVES} == set(JobEvent)


def test_only_an_offer_leads_to_a_lease_and_only_acceptance_to_running() -> None:
    into_lease = {(state, event) for (state, event), target in MOVES.items() if target in LEASED and state not in LEASED}
    assert into_lease == {(JobState.QUEUED, JobEvent.OFFER)}
    assert {event for (_, event), target in MOVES.items() if target is JobState.RUNNING} == {JobEvent.ACCEPT}


def test_only_a_handed_back_job_is_queued_again_after_it_ran() -> None:
    again = {event for (state, event), target in MOVES.items() if (state, target) == (JobState.RUNNING, JobState.QUEUED)}
    assert again == {JobEvent.HAND_BACK}


def test_every_state_that_is_not_an_end_can_be_revoked() -> None:
    assert {state for state, event in MOVES if event is JobEvent.REVOKE} == set(JobState) - ENDED


def test_leased_and_ended_exclude_each_other() -> None:
    assert not LEASED & ENDED
    assert [state.is_leased for state in (JobState.QUEUED, JobState.OFFERED, JobState.RUNNING)] == [False, True, True]


def test_an_illegal_move_names_the_state_and_the_event() -> None:
    with pytest.raises(IllegalMove) as caught:
        advance(JobState.LOST, JobEvent.ACCEPT)
    assert (caught.value.state, caught.value.event) == (JobState.LOST, JobEvent.ACCEPT)


def test_the_diagram_in_the_document_is_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    diagram = text.split("<!-- states:begin -->")[1].split("<!-- states:end -->")[0]
    assert diagram.strip() == f"```mermaid\n{render_mermaid()}```", "write states.render_mermaid() into docs/protocol.md"
