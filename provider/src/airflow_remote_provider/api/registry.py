"""Identifies the calling worker by its credential, from memory that is kept in step with the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.tokens import MalformedToken, TokenKind, check_token, hash_token

from airflow_remote_provider.api.lookups import Lookups
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger import rotation, workers
from airflow_remote_provider.ledger.errors import Suspended
from airflow_remote_provider.ledger.workers import WorkerRecord

OVERLAP = timedelta(seconds=10)
"""How far before the newest known change a refresh starts to read, and for how long after that change was seen: a transaction
with an earlier time stamp may have committed later."""
REPLAY_S = 60.0
"""How long further uses of a replaced credential are refused from memory, before one is recorded again."""


class Registry:
    """The workers that this process knows, by credential. An idle poll needs no other source."""

    def __init__(self, pool: LedgerPool, *, suspend_on_replay: bool = False) -> None:
        self.on_change: Callable[[WorkerRecord], None] = lambda record: None
        """Called with each worker that a refresh found changed, whichever call started the refresh."""
        self._pool = pool
        self._lookups = Lookups(pool)
        self._refreshing = asyncio.Lock()
        self._begun = 0
        self._done = 0
        """The numbers of the newest refresh that was begun, and of the newest that was completed."""
        self._suspends = suspend_on_replay
        self._by_id: dict[str, WorkerRecord] = {}
        self._by_hash: dict[str, WorkerRecord] = {}
        self._replayed: dict[str, float] = {}
        """By hash: the last recorded use of a replaced credential, so that not every use costs a transaction."""
        self._newest: datetime | None = None
        self._newest_seen_at = 0.0
        self._is_settled = False
        """Whether all changes up to the newest one have been read."""

    async def identify(
        self, authorization: str | None, source: str = "", *, on_unknown: Callable[[], None] = lambda: None
    ) -> WorkerRecord:
        """Return the worker that has this credential. The first use of a worker's next credential replaces the current one.

        *on_unknown* is called before a credential that is unknown here, or no longer valid, costs a database query.

        Raises:
            Refusal: `unauthorized` (missing, malformed, unknown or replaced), `expired`, `revoked`, `suspended` or `busy`; also
                what *on_unknown* raises.
        """
        digest = credential_hash(authorization)
        record = self._by_hash.get(digest)
        if record is None:
            on_unknown()
            record = await self._lookups.find(digest)
            if record is None:
                raise unknown()
            record = self.remember(record)
        if record.revoked:
            raise revoked(record.name)
        if record.suspended:
            raise suspended(record.name)
        if digest == record.next_hash:
            record = self.remember(await self._pool.workers.call(rotation.adopt, record.id, digest))
        if digest != record.credential_hash:
            on_unknown()
            return await self._accept_late_call(record, digest=digest, source=source)
        if record.expires_at is not None and record.expires_at <= datetime.now(timezone.utc):
            on_unknown()
            return self.remember(await self._pool.workers.call(rotation.check_expiry, record.id))
        return record

    async def _accept_late_call(self, record: WorkerRecord, *, digest: str, source: str) -> WorkerRecord:
        """Accept a call that was sent before the credential was replaced; refuse any later one."""
        now = asyncio.get_running_loop().time()
        if digest not in record.hashes:
            raise unknown()
        if now - self._replayed.get(digest, -REPLAY_S) < REPLAY_S:
            raise replaced(record.name)
        record, is_taken = await self._pool.workers.call(
            rotation.check_replaced, record.id, digest, source=source, suspend=self._suspends
        )
        record = self.remember(record)
        if is_taken:
            return record
        self._replayed = {known: at for known, at in self._replayed.items() if now - at < REPLAY_S} | {digest: now}
        self.on_change(record)
        raise replaced(record.name)

    def remember(self, record: WorkerRecord) -> WorkerRecord:
        """Store a row that was written or read; return the newest row of that worker.

        An older row is ignored: a row that was read before a session was opened may arrive later, and would end that session's
        poll.
        """
        known = self._by_id.get(record.id)
        if known is not None and record.changed_at < known.changed_at:
            return known
        for digest in known.hashes - record.hashes if known is not None else ():
            self._by_hash.pop(digest, None)
        self._by_id[record.id] = record
        self._by_hash.update(dict.fromkeys(record.hashes, record))
        return record

    def early_failures(self, worker_id: str) -> int:
        """Return how many of the worker's last jobs failed in a row before they had begun, as far as this process knows."""
        record = self._by_id.get(worker_id)
        return 0 if record is None else record.early_failures

    async def catch_up(self) -> None:
        """Refresh so that all changes before this call are known.

        Concurrent calls share one refresh: after an outage each worker's first call may need it, and each refresh then reads the
        whole fleet.
        """
        asked = self._begun
        async with self._refreshing:
            if self._done <= asked:
                await self._refresh()

    def is_behind(self, newest_change: datetime | None) -> bool:
        """Return whether a change may exist that this process has not read, if *newest_change* is the newest in the database."""
        if not self._is_settled:
            return True
        return newest_change is not None and (self._newest is None or newest_change > self._newest)

    async def refresh(self) -> list[WorkerRecord]:
        """Read the changes since the last refresh; return the known workers that differ."""
        async with self._refreshing:
            return await self._refresh()

    async def _refresh(self) -> list[WorkerRecord]:
        self._begun = number = self._begun + 1
        began = asyncio.get_running_loop().time()
        rows = await self._pool.call(workers.changed_since, self._since())
        newest = max((row.changed_at for row in rows), default=None)
        if newest is not None and (self._newest is None or newest > self._newest):
            self._newest, self._newest_seen_at, self._is_settled = newest, asyncio.get_running_loop().time(), False
        elif began - self._newest_seen_at >= OVERLAP.total_seconds():
            self._is_settled = True
        differ = []
        for row in rows:
            known = self._by_id.get(row.id)
            if known != row and self.remember(row) is row and known is not None:
                differ.append(row)
        self._done = number
        for row in differ:
            self.on_change(row)
        return differ

    def _since(self) -> datetime | None:
        """Return the time from which a refresh reads changes; None for all.

        Once settled, it is after the newest change, so that a fleet that changed at the same time is not read by every refresh.
        """
        if self._newest is None:
            return None
        return self._newest + timedelta(microseconds=1) if self._is_settled else self._newest - OVERLAP


def bearer(authorization: str | None, kind: TokenKind) -> str:
    """Return the well-formed token of *kind* in an Authorization header.

    Raises:
        Refusal: `unauthorized`; a malformed token never reaches the database.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refusal(ProblemCode.UNAUTHORIZED, "this route needs a credential: Authorization: Bearer …")
    try:
        return check_token(kind, token.strip())
    except MalformedToken as error:
        raise Refusal(ProblemCode.UNAUTHORIZED, str(error)) from None


def credential_hash(authorization: str | None) -> str:
    """Return the hash of the worker's credential in this header."""
    return hash_token(bearer(authorization, TokenKind.WORKER))


def unknown() -> Refusal:
    return Refusal(ProblemCode.UNAUTHORIZED, "central does not know this credential; join again with a new token")


def replaced(name: str) -> Refusal:
    return Refusal(
        ProblemCode.UNAUTHORIZED,
        f"this credential of worker {name!r} has been replaced by a newer one. If its directory was restored from a backup, "
        f"remove the worker (airflow remote workers remove {name}) and join again with --force",
    )


SUSPENDED_RETRY_S = 20.0
"""How soon a suspended worker tries again: short, so that an administrator who lifts the suspension sees the effect."""


def suspended(name: str) -> Refusal:
    return Refusal(ProblemCode.SUSPENDED, str(Suspended(name)), retry_after_s=SUSPENDED_RETRY_S)


def revoked(name: str) -> Refusal:
    return Refusal(ProblemCode.REVOKED, f"the credential of worker {name!r} was revoked; join again with a new enrolment token")
