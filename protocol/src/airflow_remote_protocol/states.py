"""The states of a job and all legal transitions between them, as one table.

Owns the rule which event leads from which state to which. It does not own when events happen or how states are stored: central's
ledger calls :func:`advance` inside its transactions, and nothing else assigns a job's state.
"""

from __future__ import annotations

from enum import Enum


class JobState(str, Enum):
    """The state of one attempt of one workload, as central sees it."""

    QUEUED = "queued"
    OFFERED = "offered"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    REVOKED = "revoked"

    @property
    def is_ended(self) -> bool:
        """No event changes the job's state any more."""
        return self in ENDED

    @property
    def is_leased(self) -> bool:
        """A worker holds a lease on the job, and the job's slots count as used."""
        return self in LEASED


class JobEvent(str, Enum):
    """An event that changes a job's state."""

    OFFER = "offer"
    """Central offers the job to a worker with the right queue and enough free slots; the epoch rises."""
    WITHDRAW = "withdraw"
    """The offer did not reach its worker (the poll had ended); it does not count as an offer attempt."""
    DECLINE = "decline"
    """The worker can't run the job now (disk full, draining)."""
    EXPIRE = "expire"
    """The worker did not accept the offer before its deadline."""
    ACCEPT = "accept"
    """The task's first Execution API call (`run`), or an explicit acceptance."""
    SUCCEED = "succeed"
    """The worker reported that the job's process succeeded."""
    FAIL = "fail"
    """The worker reported a failure, or central stopped offering the job."""
    LOSE = "lose"
    """Central had no contact with the worker for longer than `lost_after`, or the worker came back without the job."""
    HAND_BACK = "hand-back"
    """A running trigger is queued again: its worker drains or is lost, or its host process died. A trigger may start twice."""
    REVOKE = "revoke"
    """Central revoked the job: a user or the scheduler ended, cleared or deleted its task."""


LEASED = frozenset({JobState.OFFERED, JobState.RUNNING})
ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.LOST, JobState.REVOKED})

MOVES: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.OFFER): JobState.OFFERED,
    (JobState.QUEUED, JobEvent.REVOKE): JobState.REVOKED,
    (JobState.QUEUED, JobEvent.FAIL): JobState.FAILED,
    (JobState.OFFERED, JobEvent.WITHDRAW): JobState.QUEUED,
    (JobState.OFFERED, JobEvent.DECLINE): JobState.QUEUED,
    (JobState.OFFERED, JobEvent.EXPIRE): JobState.QUEUED,
    (JobState.OFFERED, JobEvent.ACCEPT): JobState.RUNNING,
    (JobState.OFFERED, JobEvent.FAIL): JobState.FAILED,
    (JobState.OFFERED, JobEvent.REVOKE): JobState.REVOKED,
    (JobState.RUNNING, JobEvent.SUCCEED): JobState.SUCCEEDED,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobEvent.LOSE): JobState.LOST,
    (JobState.RUNNING, JobEvent.HAND_BACK): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.REVOKE): JobState.REVOKED,
}


class IllegalMove(ValueError):
    """The table has no such transition; nothing has changed."""

    def __init__(self, state: JobState, event: JobEvent) -> None:
        super().__init__(f"a job that is {state.value} can't {event.value}")
        self.state = state
        self.event = event


def advance(state: JobState, event: JobEvent) -> JobState:
    """Return the state that follows *event*.

    Raises:
        IllegalMove: the table has no such transition; nothing has changed.
    """
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalMove(state, event) from None


def render_mermaid() -> str:
    """Return the table as a Mermaid state diagram, for docs/protocol.md."""
    lines = ["stateDiagram-v2", f"    [*] --> {JobState.QUEUED.value}"]
    lines += [f"    {a.value} --> {b.value}: {event.value}" for (a, event), b in MOVES.items()]
    lines += [f"    {state.value} --> [*]" for state in JobState if state.is_ended]
    return "\n".join(lines) + "\n"
