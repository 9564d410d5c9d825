"""Errors named after the decision they force. What central says becomes one of these at the door (:mod:`.link`)."""

from __future__ import annotations

from airflow_remote_protocol.errors import Decision, Problem, ProblemCode


class WorkerError(Exception):
    """Base of what the worker raises on purpose. The text names the thing, the cause and what to do next."""


class Unreachable(WorkerError):
    """Central did not answer, or something else did. Keep what you have; try later."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, was_cut: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.was_cut = was_cut
        """The request had left; then the connection ended, stayed silent for too long, or somebody else answered."""


class Withheld(Unreachable):
    """A person has to lift something first, or a clock to be set right. Keep what you have; ask again."""

    def __init__(self, message: str, *, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.code = problem.known_code


class SessionTaken(Unreachable):
    """Another start of this worker has its session, or central forgot it. Keep what you have; the poll loop opens one anew."""


class Refused(WorkerError):
    """Central will not have it, now or later. Stop asking; tell a person."""

    def __init__(self, message: str, *, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem

    @property
    def code(self) -> ProblemCode | None:
        return self.problem.known_code if self.problem else None

    @property
    def concerns_one_request(self) -> bool:
        """Only this request is wrong; the worker as such is still welcome."""
        return self.code in (ProblemCode.TOO_LARGE, ProblemCode.INVALID)


class Superseded(WorkerError):
    """Someone else owns the job. Stop it; drop its report."""


class Outdated(WorkerError):
    """This worker's protocol is too old (or too new) for central. Update it or leave."""


class Rewind(WorkerError):
    """Central holds *size* bytes of this log; go on from there."""

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


class Damaged(WorkerError):
    """Something on our own disk is not what we wrote. Quarantine it; don't guess."""


def from_problem(problem: Problem, *, retry_after_s: float | None = None) -> WorkerError:
    """Return the error for a problem of central's; a code we don't know is retried and stops nothing."""
    text = f"{problem.title}: {problem.detail}" if problem.detail else problem.title
    decision = problem.decision
    if decision is Decision.REFUSED:
        return Refused(text, problem=problem)
    if decision is Decision.WAIT:
        return Withheld(text, problem=problem, retry_after_s=retry_after_s)
    if decision is Decision.SUPERSEDED:
        return Superseded(text)
    if decision is Decision.REOPEN:
        return SessionTaken(text)
    if decision is Decision.OUTDATED:
        return Outdated(text)
    if decision is Decision.REWIND and problem.size is not None:
        return Rewind(text, size=problem.size)
    return Unreachable(f"central is in trouble: {text}", retry_after_s=retry_after_s)
