"""The states of a job and every legal move between them, as one table.

Owns the answer to "may this job go from here to there?". It refuses to own who asks, when, or what is stored: central's
ledger calls :func:`advance` inside its transactions; nobody else assigns a job's state.
"""

from __future__ import annotations

from enum import Enum


class JobState(str, Enum):
    """Where one attempt of one workload stands, as central sees it."""

    QUEUED = "queued"
    OFFERED = "offered"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    REVOKED = "revoked"

    @property
    def is_ended(self) -> bool:
        """No event moves the job any more."""
        return self in ENDED

    @property
    def is_leased(self) -> bool:
        """A worker holds the right to this job and its slots count as used."""
        return self in LEASED


class JobEvent(str, Enum):
    """What may happen to a job."""

    OFFER = "offer"
    """A worker with the right queue and enough free slots is given the job; the epoch rises."""
    WITHDRAW = "withdraw"
    """The offer did not reach its worker (the poll was gone); it does not count against the job."""
    DECLINE = "decline"
    """The worker says that it can't take the job now (disk full, draining)."""
    EXPIRE = "expire"
    """Nobody accepted the offer before its deadline."""
    ACCEPT = "accept"
    """The task's first Execution API call (`run`), or an explicit acceptance."""
    SUCCEED = "succeed"
    """The worker's report: the task process ended well."""
    FAIL = "fail"
    """The worker's report: it did not; or central gave up offering the job."""
    LOSE = "lose"
    """The worker was not heard of for longer than `lost_after`, or came back without the job."""
    HAND_BACK = "hand-back"
    """A running trigger goes back to the queue: its worker drains or is lost, or its host died. A trigger may start twice."""
    REVOKE = "revoke"
    """Central took the job back: a person or the scheduler ended, cleared or deleted its task."""


LEASED = frozenset({JobState.OFFERED, JobState.RUNNING})
ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.LOST, JobState.REVOKED})

MOVES: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.OFFER): JobState.OFFERED,
    (JobState.QUEUED, JobEvent.REVOKE): JobState.REVOKED,
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
    """The table has no such arrow; nothing has changed."""

    def __init__(self, state: JobState, event: JobEvent) -> None:
        super().__init__(f"a job that is {state.value} can't {event.value}")
        self.state = state
        self.event = event


def advance(state: JobState, event: JobEvent) -> JobState:
    """Return the state that follows *event*.

    Raises:
        IllegalMove: the table has no such arrow; nothing has changed.
    """
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalMove(state, event) from None


def as_mermaid() -> str:
    """Return the table as a Mermaid state diagram, for docs/protocol.md."""
    lines = ["stateDiagram-v2", f"    [*] --> {JobState.QUEUED.value}"]
    lines += [f"    {a.value} --> {b.value}: {event.value}" for (a, event), b in MOVES.items()]
    lines += [f"    {state.value} --> [*]" for state in JobState if state.is_ended]
    return "\n".join(lines) + "\n"
