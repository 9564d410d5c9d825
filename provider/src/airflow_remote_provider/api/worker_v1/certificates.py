"""Checks the client certificate of a call. TLS ends at the proxy in front of central, which names the subject in a header."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from airflow_remote_protocol.errors import ProblemCode
from starlette.requests import Request

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger import certificates
from airflow_remote_provider.ledger.errors import WrongCertificate
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.workers import WorkerRecord

LONGEST = 500
"""A subject of a dozen parts has half of these characters."""
NOTED_S = 60.0
"""How long a wrong certificate is refused from memory after it was recorded."""
RETRY_S = 20.0
"""How soon the worker tries again: short, so that an administrator who corrects the certificate sees the effect."""


class Certificates:
    """The check that `[remote] client_certificate_header` turns on. If that is empty, every call passes."""

    def __init__(self, header: str, pool: LedgerPool) -> None:
        self._header = header
        self._pool = pool
        self._noted: dict[str, float] = {}
        """By worker: when a call with a wrong certificate was last recorded."""

    def read_subject(self, request: Request) -> str | None:
        """Return the subject of the call's client certificate; None if the check is off.

        Raises:
            Refusal: `wrong-certificate`: there is no certificate, or its subject is too long.
        """
        if not self._header:
            return None
        subject = request.headers.get(self._header, "").strip()
        if subject and len(subject) <= LONGEST:
            return presentable(subject, longest=LONGEST)
        why = "this call came without a client certificate" if not subject else "the client certificate's subject is too long"
        raise _wrong(
            f"{why}; central reads it from the header {self._header}, which the proxy in front of it sets. "
            "Give the worker a certificate (client_cert in its settings), and have it call central through that proxy"
        )

    def matches(self, worker: WorkerRecord, subject: str | None) -> bool:
        """Return whether the worker may call with this certificate, as far as this process knows."""
        return subject is None or worker.certificate in (None, subject)

    async def require_bound(
        self, worker: WorkerRecord, subject: str | None, reread: Callable[[], Awaitable[WorkerRecord]]
    ) -> None:
        """Check that the worker is bound to this certificate, or to none yet.

        *reread* returns the worker's current row of the ledger: another process may have bound it to another certificate.

        Raises:
            Refusal: `wrong-certificate`; it is recorded.
        """
        if subject is None or self.matches(worker, subject):
            return
        now = asyncio.get_running_loop().time()
        if now - self._noted.get(worker.id, -NOTED_S) >= NOTED_S:
            # Set before the query, so that concurrent calls cause only one.
            self._noted = {known: at for known, at in self._noted.items() if now - at < NOTED_S} | {worker.id: now}
            if (await reread()).certificate in (None, subject):
                del self._noted[worker.id]
                return
            await self._pool.workers.call(certificates.flag_wrong_certificate, worker.id, subject)
        raise _wrong(str(WrongCertificate(worker.name, subject)))


def _wrong(text: str) -> Refusal:
    return Refusal(ProblemCode.WRONG_CERTIFICATE, text, retry_after_s=RETRY_S)
