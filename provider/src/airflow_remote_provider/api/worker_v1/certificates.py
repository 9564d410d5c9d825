"""Whose client certificate a call came with. TLS ends at what stands in front of central, which tells us in a header."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from airflow_remote_protocol.errors import ProblemCode
from starlette.requests import Request

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger import certificates
from airflow_remote_provider.ledger.errors import StrangeCertificate
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.workers import WorkerRecord

LONGEST = 500
"""A subject of a dozen parts has half of that."""
NOTED_S = 60.0
"""How long a strange certificate that was written down is refused from memory."""
RETRY_S = 20.0
"""How soon the worker asks again; what is mended should be felt while a person still looks."""


class Certificates:
    """What `[remote] client_certificate_header` asks for; nothing if that is empty."""

    def __init__(self, header: str, pool: LedgerPool) -> None:
        self._header = header
        self._pool = pool
        self._noted: dict[str, float] = {}
        """When a worker's call with a strange certificate was last written down."""

    def shown(self, request: Request) -> str | None:
        """Return whose certificate this call came with; None where nobody asks for one.

        Raises:
            Refusal: `wrong-certificate`: none, or its name is longer than any.
        """
        if not self._header:
            return None
        whose = request.headers.get(self._header, "").strip()
        if whose and len(whose) <= LONGEST:
            return presentable(whose, longest=LONGEST)
        why = "this call came without a client certificate" if not whose else "the client certificate's name is too long"
        raise _wrong(
            f"{why}; central knows it by the header {self._header}, which what stands in front of it sets. "
            "Give the worker one (client_cert in its settings), and call central by that way"
        )

    def fits(self, worker: WorkerRecord, whose: str | None) -> bool:
        """Whether the worker may call with this certificate, as far as this process knows."""
        return whose is None or worker.certificate in (None, whose)

    async def insist(self, worker: WorkerRecord, whose: str | None, anew: Callable[[], Awaitable[WorkerRecord]]) -> None:
        """Let only the certificate pass that the worker is bound to; one that is bound to none yet may use any.

        *anew* tells what the ledger knows of the worker: another process may have heard that it is bound to another one.

        Raises:
            Refusal: `wrong-certificate`; it is written down.
        """
        if whose is None or self.fits(worker, whose):
            return
        now = asyncio.get_running_loop().time()
        if now - self._noted.get(worker.id, -NOTED_S) >= NOTED_S:
            # Before the database is asked: however many calls come meanwhile, it is asked once.
            self._noted = {known: at for known, at in self._noted.items() if now - at < NOTED_S} | {worker.id: now}
            if (await anew()).certificate in (None, whose):
                del self._noted[worker.id]
                return
            await self._pool.workers.call(certificates.note_strange, worker.id, whose)
        raise _wrong(str(StrangeCertificate(worker.name, whose)))


def _wrong(text: str) -> Refusal:
    return Refusal(ProblemCode.WRONG_CERTIFICATE, text, retry_after_s=RETRY_S)
