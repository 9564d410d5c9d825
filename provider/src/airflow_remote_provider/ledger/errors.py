"""Why a verb refuses. Each error knows the problem code under which a worker hears of it."""

from __future__ import annotations

from airflow_remote_protocol.errors import ProblemCode


class LedgerError(Exception):
    """Nothing has changed; the text names the thing, the cause and the remedy."""

    code = ProblemCode.INVALID


class NotYours(LedgerError):
    """No such job, or another worker's: the caller can't tell which."""

    code = ProblemCode.NOT_FOUND

    def __init__(self, job_id: str) -> None:
        super().__init__(f"this worker has no job {job_id[:64]}")


class Superseded(LedgerError):
    """The lease is over: a higher epoch exists, or the job has ended."""

    code = ProblemCode.SUPERSEDED


class TooLate(Superseded):
    """The job was lost before its worker reported it; what is reported counts for nothing, but is noted."""


class LeaseLapsed(LedgerError):
    """The job is over, and so is what its lease allowed: only the same state again, the rest of its log, and its report remain.

    Not :class:`Superseded`: the worker still owes the log and the report, and must not drop them.
    """

    code = ProblemCode.INVALID


class NotYet(LedgerError):
    """Ask again in a moment."""

    code = ProblemCode.BUSY


class Impossible(LedgerError):
    """What is asked can't be done to a job in its state."""

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
    """The worker is refused until somebody lifts it."""

    code = ProblemCode.SUSPENDED

    def __init__(self, name: str) -> None:
        super().__init__(
            f"worker {name!r} is suspended; its jobs run on, and it may go on once an admin lifts that: "
            f"airflow remote workers unsuspend {name}"
        )


class Expired(LedgerError):
    """The credential's life is over."""

    code = ProblemCode.EXPIRED

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the credential of worker {name!r} has expired: it was not connected when it should have been replaced. "
            f"Remove it (airflow remote workers remove {name}) and join again with a new enrolment token (join --force)"
        )


class StrangeCertificate(LedgerError):
    """The client certificate is not the one that this worker is bound to."""

    code = ProblemCode.WRONG_CERTIFICATE

    def __init__(self, name: str, whose: str) -> None:
        super().__init__(
            f"worker {name!r} is bound to another client certificate than this call's ({whose}). If its own was issued under "
            f"another name, let it be bound anew: airflow remote workers rebind {name}"
        )


class Unknown(LedgerError):
    """People named a worker, a job or a token that doesn't exist."""

    code = ProblemCode.NOT_FOUND
