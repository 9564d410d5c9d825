"""Who is calling: credentials checked against memory, and memory kept in step with the database."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.tokens import MalformedToken, TokenKind, check_token, hash_token

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger import workers
from airflow_remote_provider.ledger.workers import WorkerRecord

OVERLAP = timedelta(seconds=10)
"""How far behind the newest change seen a refresh looks again: a transaction that stamped earlier may have committed later."""


class Registry:
    """The workers that this process has heard of, by credential. An idle poll is answered from here alone."""

    def __init__(self, pool: LedgerPool) -> None:
        self._pool = pool
        self._by_hash: dict[str, WorkerRecord] = {}
        self._newest: datetime | None = None

    async def identify(self, authorization: str | None) -> WorkerRecord:
        """Return the worker whose credential this is.

        Raises:
            Refusal: `unauthorized` (none, mangled, unknown) or `revoked`.
        """
        token = bearer(authorization, TokenKind.WORKER)
        digest = hash_token(token)
        record = self._by_hash.get(digest)
        if record is None:
            record = await self._pool.call(workers.by_credential, digest)
            if record is None:
                raise Refusal(ProblemCode.UNAUTHORIZED, "central does not know this credential; join again with a new token")
            self._by_hash[digest] = record
        if record.revoked:
            raise revoked(record.name)
        return record

    def remember(self, record: WorkerRecord) -> None:
        """Take over a row that this process itself has just written or read."""
        self._by_hash[record.credential_hash] = record

    async def refresh(self) -> list[WorkerRecord]:
        """Read what changed in the database since the last time; return the workers that differ from what was known."""
        since = None if self._newest is None else self._newest - OVERLAP
        rows = await self._pool.call(workers.changed_since, since)
        differ = []
        for row in rows:
            self._newest = row.changed_at if self._newest is None else max(self._newest, row.changed_at)
            known = self._by_hash.get(row.credential_hash)
            if known is not None and known != row and not _is_outdated(row, known):
                self._by_hash[row.credential_hash] = row
                differ.append(row)
        return differ


def _is_outdated(row: WorkerRecord, known: WorkerRecord) -> bool:
    """Say whether *row* was read before *known*, which this process wrote while the reading went on. A revocation is final."""
    return row.changed_at < known.changed_at and not row.revoked


def bearer(authorization: str | None, kind: TokenKind) -> str:
    """Return the well-formed token of *kind* in an Authorization header.

    Raises:
        Refusal: `unauthorized`; garbage never reaches the database.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refusal(ProblemCode.UNAUTHORIZED, "this route needs a credential: Authorization: Bearer …")
    try:
        return check_token(kind, token.strip())
    except MalformedToken as error:
        raise Refusal(ProblemCode.UNAUTHORIZED, str(error)) from None


def revoked(name: str) -> Refusal:
    return Refusal(ProblemCode.REVOKED, f"the credential of worker {name!r} was revoked; join again with a new enrolment token")
