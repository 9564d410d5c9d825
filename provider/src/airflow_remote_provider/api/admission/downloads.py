"""Limits how many downloads of code one API process serves at once, and how many of them one worker may have.

A download lasts as long as the worker's link needs, so its place is held much longer than that of a call. Used on the event loop
only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider.api.problems import Refusal

OF_WORKER = 4
"""Downloads of one worker while at least half of the places are free: a worker fetches each tree once, and a connection that it
has lost may still count."""
OF_WORKER_WHEN_CROWDED = 1
RETRY_S = (1.0, 4.0)
"""The time to retry is between these, at random: a place is free again after some seconds, and then not all come at once."""


class Downloads:
    """The downloads under way in this process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: dict[str, int] = {}
        self._all = 0

    @contextmanager
    def place(self, worker_id: str) -> Iterator[None]:
        """Count a download while it is under way.

        Raises:
            Refusal: `busy`: all places are taken, or this worker has too many.
        """
        of_worker = self._under_way.get(worker_id, 0)
        allowed = OF_WORKER_WHEN_CROWDED if 2 * self._all >= self._most else OF_WORKER
        if self._all >= self._most:
            raise _busy(f"central serves {self._all} downloads of code, which is its limit ([remote] pack_concurrency)")
        if of_worker >= allowed:
            raise _busy(f"this worker has {of_worker} downloads of code under way")
        self._under_way[worker_id] = of_worker + 1
        self._all += 1
        try:
            yield
        finally:
            self._all -= 1
            self._under_way[worker_id] -= 1
            if not self._under_way[worker_id]:
                del self._under_way[worker_id]


def _busy(text: str) -> Refusal:
    return Refusal(ProblemCode.BUSY, f"{text}; try again later", retry_after_s=random.uniform(*RETRY_S))
