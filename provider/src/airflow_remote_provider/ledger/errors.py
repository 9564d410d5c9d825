"""Errors of the ledger. Each has the problem code with which the API reports it."""

from __future__ import annotations

from airflow_remote_protocol.errors import ProblemCode


class LedgerError(Exception):
    """Nothing has changed; the text names the thing, the cause and the remedy."""

    code = ProblemCode.INVALID


class NoSuchJob(LedgerError):
    """The job does not exist, or belongs to another worker; the caller can't tell which."""

    code = ProblemCode.NOT_FOUND

    def __init__(self, job_id: str) -> None:
        super().__init__(f"this worker has no job {job_id[:64]}")


class Superseded(LedgerError):
    """The lease is over: a higher epoch exists, or the job has ended."""

    code = ProblemCode.SUPERSEDED


class TooLate(Superseded):
    """The job was lost before its worker reported it; the report changes nothing, but is recorded."""


class LeaseLapsed(LedgerError):
    """The job has ended, so its lease only allows repeating the same state, the rest of its log, and its report.

    Not :class:`Superseded`: the worker must still send the log and the report, and must not drop them.
    """

    code = ProblemCode.INVALID


class RetryLater(LedgerError):
    """The call can succeed if it is repeated in a moment."""

    code = ProblemCode.BUSY


class Impossible(LedgerError):
    """The job's state does not allow the call."""

    code = ProblemCode.INVALID


class TokenRefused(LedgerError):
    """The enrolment token is unknown, spent, expired, revoked, or not meant for this name."""

    code = ProblemCode.TOKEN_REFUSED


class NameTaken(LedgerError):
    code = ProblemCode.NAME_TAKEN


class Cloned(LedgerError):
    """Another machine holds this credential's session."""

    code = ProblemCode.CLONED


class Revoked(LedgerError):
    code = ProblemCode.REVOKED


class Suspended(LedgerError):
    """The worker is refused until an administrator lifts its suspension."""

    code = ProblemCode.SUSPENDED

    def __init__(self, name: str) -> None:
        super().__init__(
            f"worker {name!r} is suspended; its jobs keep running. An administrator can lift the suspension: "
            f"airflow remote workers unsuspend {name}"
        )


class Expired(LedgerError):
    """The credential has expired."""

    code = ProblemCode.EXPIRED

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the credential of worker {name!r} has expired: the worker was not connected when it was due for replacement. "
            f"Remove the worker (airflow remote workers remove {name}) and join again with a new enrolment token (join --force)"
        )


class WrongCertificate(LedgerError):
    """The client certificate is not the one that this worker is bound to."""

    code = ProblemCode.WRONG_CERTIFICATE

    def __init__(self, name: str, whose: str) -> None:
        super().__init__(
            f"worker {name!r} is bound to another client certificate than the one of this call ({whose}). If its certificate "
            f"was reissued under another name, bind it again: airflow remote workers rebind {name}"
        )


class NotFound(LedgerError):
    """A user named a worker, a job or a token that doesn't exist."""

    code = ProblemCode.NOT_FOUND
