"""Ships task logs: follows each held job's `task.log` and sends what central lacks, until the job has ended and all is sent.

The position is central's size of the log, which it returns with each chunk: a lost reply neither loses nor repeats a byte.
"""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import anyio

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused, Rewind, Superseded, Unreachable
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.link.attempts import RETRIED, Attempts
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.loops.per_job import PerJob

log = logging.getLogger(__name__)

CHUNK = 1_000_000
"""Raw bytes per request; even if they can't be compressed they stay below central's limit of 1 MiB packed."""
LEAST_CHUNK = 16_000
LOOK_EVERY_S = 0.25
GATHER_S = 0.4
"""How long new lines wait for more, unless there are many or the job has ended: the whole log of a short job is one request.
Together with `LOOK_EVERY_S`, a printed line reaches central within a second."""
GATHER = 64_000
IN_A_THREAD_FROM = 64_000
"""Bytes. Compressing less takes one or two milliseconds at most; a thread would cost more."""


class ShipLoop(PerJob):
    """Sends the part of each job's log that central lacks."""

    verb = "ship"

    def __init__(self, link: Link, clock: Clock) -> None:
        super().__init__()
        self.gzip = True
        self._link = link
        self._clock = clock

    async def _process(self, job: Job) -> None:
        shipment = _Shipment(job.dir.task_log)
        attempts = Attempts(self._link, self._clock)
        while not job.superseded.is_set():
            # Checked before the log is read: once a job has ended and its outbox is delivered, its log does not grow.
            over = job.delivered.is_set()
            try:
                chunk = shipment.read()
                if not chunk and over:
                    break
                if chunk and (over or len(chunk) >= GATHER or shipment.has_waited(self._clock.monotonic())):
                    await self._send(job, shipment, chunk)
                    attempts.reset()
                else:
                    with anyio.move_on_after(LOOK_EVERY_S):
                        await job.delivered.wait()
            except Superseded:
                job.superseded.set()
            except Refused as error:
                if error.concerns_one_request and not shipment.shrink():
                    log.error("job %s: central refuses its log: %s; the rest is only in %s", job.lease, error, job.dir.task_log)
                    break
                await attempts.wait_after(error)
            except RETRIED as error:
                await attempts.wait_after(error)
            except OSError as error:
                log.error("job %s: its log %s can't be read: %s", job.lease, job.dir.task_log, error)
                await self._clock.sleep(attempts.next_s())
        await job.delivered.wait()
        job.shipped.set()

    async def _send(self, job: Job, shipment: _Shipment, chunk: bytes) -> None:
        body = chunk
        if self.gzip:
            pack_here = len(chunk) < IN_A_THREAD_FROM
            body = _pack(chunk) if pack_here else await anyio.to_thread.run_sync(_pack, chunk)
        try:
            size = await self._link.append_log(job.lease, shipment.position, body, gzipped=self.gzip)
        except Rewind as error:
            size = error.size
        local = shipment.size()
        if size > local:
            log.error("job %s: central has %d bytes of its log, this disk only %d; the disk lost some", job.lease, size, local)
        if size == shipment.position:
            # Neither appended nor moved: without this, a faulty peer would be called in a tight loop.
            raise Unreachable(f"central did not accept the log from byte {size} on")
        shipment.position = size


class _Shipment:
    """One file, and the position that central has reached in it."""

    def __init__(self, path: Path) -> None:
        self.position = 0
        self._path = path
        self._chunk = CHUNK
        self._found: tuple[int, float] | None = None
        """The position after which new lines were found, and when."""

    def has_waited(self, now: float) -> bool:
        """Return whether the lines after our position were found at least `GATHER_S` ago."""
        if self._found is None or self._found[0] != self.position:
            self._found = (self.position, now)
        return now - self._found[1] >= GATHER_S

    def read(self) -> bytes:
        """Return the next chunk; empty if there is nothing (yet)."""
        if self.size() <= self.position:
            return b""
        with self._path.open("rb") as file:
            file.seek(self.position)
            return file.read(self._chunk)

    def size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def shrink(self) -> bool:
        """Halve the chunk size; return False when it can't get smaller."""
        self._chunk //= 2
        return self._chunk >= LEAST_CHUNK


def _pack(chunk: bytes) -> bytes:
    return gzip.compress(chunk, compresslevel=4, mtime=0)
