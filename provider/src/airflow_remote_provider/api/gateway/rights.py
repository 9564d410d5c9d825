"""Decides whether a job may make a call: by the table of rules, and by the ledger where a grant is needed. Default deny.

Calls about the job's own task instance cost no database query here. An answer about a name is cached for :data:`HOLDS_S`, so that
a task that reads one variable in a loop asks once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial

from airflow_remote_protocol.bounds import OutOfBounds, check_versions
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import JobKind
from starlette.requests import Request

from airflow_remote_provider import metrics
from airflow_remote_provider.api.gateway import rules
from airflow_remote_provider.api.gateway.rules import Match, Meaning, NotAllowed
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import NotGranted, Refusal
from airflow_remote_provider.definitions.grants import Ask, Skip
from airflow_remote_provider.ledger import grants
from airflow_remote_provider.ledger.fence import Subject, WorkerLease
from airflow_remote_provider.ledger.grants import Answer, Verdict
from airflow_remote_provider.ledger.skips import NotDownstream, check_skip

HOLDS_S = 5.0
"""How long a changed queue policy may take to have an effect."""
MOST_KEPT = 10_000
"""Answers kept; some hundred bytes each."""
CHECKED_AT_ONCE = 65536
"""A body up to this size in bytes is checked on the event loop, in about a millisecond; a thread checks larger ones."""


class Rights:
    """The decisions of one API process, cached."""

    def __init__(self, pool: LedgerPool) -> None:
        self._pool = pool
        self._answers: OrderedDict[tuple[WorkerLease, Ask], tuple[float, Verdict]] = OrderedDict()
        """Time of the question, oldest first, and the answer."""
        self._refused: OrderedDict[tuple[WorkerLease, str], None] = OrderedDict()
        """Calls that are already recorded as denied."""

    async def check_values(self, match: Match, request: Request, body: bytes) -> None:
        """Check that the values of the call are within their bounds, which are the same for every caller.

        Raises:
            Refusal: `invalid`; a value is out of bounds.
        """
        check = partial(rules.check_values, match, query=request.scope.get("query_string", b""), body=body)
        try:
            check_versions(request.headers.getlist("airflow-api-version"))
            await asyncio.to_thread(check) if len(body) > CHECKED_AT_ONCE else check()
        except OutOfBounds as error:
            metrics.count("remote.gateway.denied")
            raise Refusal(ProblemCode.INVALID, f"{match.method} {match.raw[:200]!r}: {error}") from None

    async def check(self, lease: WorkerLease, subject: Subject, *, match: Match, request: Request, body: bytes) -> None:
        """Check that the call may be passed on to the Execution API. Its values are checked by :meth:`check_values`.

        Raises:
            NotGranted: no grant allows it; the text names the missing grant.
            Refusal: `invalid`; no grant can allow it, or the job was taken back and may not write for its try any more.
        """
        if subject.taken_back and match.meaning is Meaning.WRITE_OF_TRY:
            # XComs have no try in their key: a cleared task that does not know it yet would write XComs of the next try.
            raise Refusal(ProblemCode.INVALID, "central has taken this job back (its task was ended, cleared or deleted)")
        try:
            asks = rules.judge(
                subject,
                match,
                query=request.scope.get("query_string", b""),
                body=body,
                versions=request.headers.getlist("airflow-api-version"),
            )
            for ask in asks:
                if isinstance(ask, Skip):
                    await self._pool.jobs.call(check_skip, lease.job_id, ask)
        except (NotAllowed, NotDownstream) as error:
            raise await self.refusal(lease, method=match.method, path=match.raw, error=error) from None
        await self.require_grants(lease, [ask for ask in asks if isinstance(ask, Ask)])

    async def require_grants(self, lease: WorkerLease, asks: Iterable[Ask]) -> None:
        """Check that the job has a grant for each of *asks*.

        Raises:
            NotGranted: a grant is missing; the text names it.
        """
        for ask in asks:
            verdict = await self._decide(lease, ask)
            if verdict.answer is Answer.DENIED:
                metrics.count("remote.gateway.denied")
                raise NotGranted(verdict.why)

    async def refusal(self, lease: WorkerLease, *, method: str, path: str, error: Exception) -> Refusal:
        """Record a call that no grant can allow; return its refusal."""
        metrics.count("remote.gateway.denied")
        await self._note(lease, f"{method} {path[:200]}")
        return Refusal(ProblemCode.INVALID, f"not allowed to this job: {method} {path[:200]!r}; {error}")

    async def _decide(self, lease: WorkerLease, ask: Ask) -> Verdict:
        asked_at = asyncio.get_running_loop().time()
        known = self._answers.get((lease, ask))
        if known is not None and asked_at - known[0] < HOLDS_S:
            return known[1]
        verdict = await self._pool.jobs.call(grants.decide, lease.job_id, ask)
        self._answers[lease, ask] = (asked_at, verdict)
        self._answers.move_to_end((lease, ask))
        while len(self._answers) > MOST_KEPT:
            self._answers.popitem(last=False)
        return verdict

    async def _note(self, lease: WorkerLease, call: str) -> None:
        if (lease, call) in self._refused:
            return
        await self._pool.jobs.call(grants.deny_call, lease.job_id, call)
        self._refused[lease, call] = None
        while len(self._refused) > MOST_KEPT:
            self._refused.popitem(last=False)


def token_scope(kind: JobKind, meaning: Meaning = Meaning.OTHER) -> str:
    """Return the scope of the token for a call.

    Connection tests have routes of their own. The start of a callback needs a token of its own scope.
    """
    if meaning is Meaning.START_CALLBACK:
        return "callback"
    return "workload" if kind is JobKind.CONNECTION_TEST else "execution"
