"""Errors on the wire: problem codes (RFC 9457 bodies), and what the worker must do about each."""

from __future__ import annotations

from enum import Enum

import msgspec


class Decision(str, Enum):
    """What the worker does about an error."""

    UNREACHABLE = "unreachable"
    """Keep the data, try again later."""
    WAIT = "wait"
    """Keep the data, try again later: an administrator must act first, or central's clock must be corrected."""
    REFUSED = "refused"
    """Don't try again; report it to the operator."""
    SUPERSEDED = "superseded"
    """Another lease owns the job: stop the job, drop the report."""
    OUTDATED = "outdated"
    """Update the worker, or shut it down."""
    REOPEN = "reopen"
    """Keep the data, open a new session, then try again. Central refuses the session if this worker is a copy."""
    REWIND = "rewind"
    """Continue from the log offset that central reports."""


class ProblemCode(str, Enum):
    """Why central refused a request. The value is what `airflow-remote-problem` and the body's `code` carry."""

    UNAUTHORIZED = "unauthorized"
    EXPIRED = "expired"
    REVOKED = "revoked"
    SUSPENDED = "suspended"
    WRONG_CERTIFICATE = "wrong-certificate"
    CLONED = "cloned"
    TOKEN_REFUSED = "token-refused"
    NAME_TAKEN = "name-taken"
    SESSION_TAKEN = "session-taken"
    NOT_FOUND = "not-found"
    SUPERSEDED = "superseded"
    LOG_OFFSET = "log-offset"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    INVALID = "invalid"
    OUTDATED = "outdated"
    BUSY = "busy"
    INTERNAL = "internal"


STATUS: dict[ProblemCode, int] = {
    ProblemCode.UNAUTHORIZED: 401,
    ProblemCode.EXPIRED: 401,
    ProblemCode.REVOKED: 403,
    ProblemCode.SUSPENDED: 403,
    ProblemCode.WRONG_CERTIFICATE: 403,
    ProblemCode.CLONED: 409,
    ProblemCode.TOKEN_REFUSED: 403,
    ProblemCode.NAME_TAKEN: 409,
    ProblemCode.SESSION_TAKEN: 409,
    ProblemCode.NOT_FOUND: 404,
    ProblemCode.SUPERSEDED: 409,
    ProblemCode.LOG_OFFSET: 409,
    ProblemCode.TOO_LARGE: 413,
    ProblemCode.TOO_SLOW: 408,
    ProblemCode.INVALID: 422,
    ProblemCode.OUTDATED: 426,
    ProblemCode.BUSY: 503,
    ProblemCode.INTERNAL: 500,
}

DECISIONS: dict[ProblemCode, Decision] = {
    ProblemCode.UNAUTHORIZED: Decision.REFUSED,
    ProblemCode.EXPIRED: Decision.WAIT,
    ProblemCode.REVOKED: Decision.REFUSED,
    ProblemCode.SUSPENDED: Decision.WAIT,
    ProblemCode.WRONG_CERTIFICATE: Decision.WAIT,
    ProblemCode.CLONED: Decision.REFUSED,
    ProblemCode.TOKEN_REFUSED: Decision.REFUSED,
    ProblemCode.NAME_TAKEN: Decision.REFUSED,
    ProblemCode.SESSION_TAKEN: Decision.REOPEN,
    ProblemCode.NOT_FOUND: Decision.SUPERSEDED,
    ProblemCode.SUPERSEDED: Decision.SUPERSEDED,
    ProblemCode.LOG_OFFSET: Decision.REWIND,
    ProblemCode.TOO_LARGE: Decision.REFUSED,
    ProblemCode.TOO_SLOW: Decision.UNREACHABLE,
    ProblemCode.INVALID: Decision.REFUSED,
    ProblemCode.OUTDATED: Decision.OUTDATED,
    ProblemCode.BUSY: Decision.UNREACHABLE,
    ProblemCode.INTERNAL: Decision.UNREACHABLE,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of every error that central itself returns (`application/problem+json`)."""

    code: str
    title: str
    status: int
    detail: str = ""
    size: int | None = None
    """With `log-offset`: how many bytes of this job's log central has; continue from there."""

    @property
    def known_code(self) -> ProblemCode:
        """The code; an unknown one counts as `internal`, which is retried and never stops anything."""
        try:
            return ProblemCode(self.code)
        except ValueError:
            return ProblemCode.INTERNAL

    @property
    def decision(self) -> Decision:
        return DECISIONS[self.known_code]


def make_problem(code: ProblemCode, detail: str, *, size: int | None = None) -> Problem:
    """Return the body for *code*. *detail* names the thing, the cause and the remedy."""
    title = code.value.replace("-", " ").capitalize()
    return Problem(code=code.value, title=title, status=STATUS[code], detail=detail, size=size)
