"""Errors, named after the decision that the caller has to make. :mod:`.link` turns central's answers into these."""

from __future__ import annotations

from airflow_remote_protocol.errors import Decision, Problem, ProblemCode


class WorkerError(Exception):
    """Base of the worker's own errors. The text names the thing, the cause and the remedy."""


class Unreachable(WorkerError):
    """Central did not answer, or something else answered. Keep everything; retry later."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, was_cut: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.was_cut = was_cut
        """The request was sent; then the connection ended, stayed silent for too long, or something else answered."""


class Withheld(Unreachable):
    """An administrator has to act first, or a clock has to be set. Keep everything; retry later."""

    def __init__(self, message: str, *, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.code = problem.known_code


class SessionTaken(Unreachable):
    """Another start of this worker took its session, or central lost it. Keep everything; the poll loop opens a new session."""


class Refused(WorkerError):
    """Central refuses this request or this worker for good. Don't retry; show the text to the operator."""

    def __init__(self, message: str, *, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem

    @property
    def code(self) -> ProblemCode | None:
        return self.problem.known_code if self.problem else None

    @property
    def concerns_one_request(self) -> bool:
        """Only this request is refused, not the worker."""
        return self.code in (ProblemCode.TOO_LARGE, ProblemCode.INVALID)


class Superseded(WorkerError):
    """Central has given the job to another lease. Stop the job; drop its report."""


class Outdated(WorkerError):
    """This worker's protocol is too old (or too new) for central. Update the worker."""


class Rewind(WorkerError):
    """Central holds *size* bytes of this log; continue from there."""

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


class Damaged(WorkerError):
    """A file on the worker's disk is not what the worker wrote. Move it to the quarantine; don't guess its content."""


def from_problem(problem: Problem, *, retry_after_s: float | None = None) -> WorkerError:
    """Return the error for central's *problem*. An unknown code becomes :class:`Unreachable`, which is retried."""
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
    return Unreachable(f"central reports a problem: {text}", retry_after_s=retry_after_s)
