"""Routes offers and stops by kind of job: triggers to the trigger keeper, everything else to the supervisor."""

from __future__ import annotations

from airflow_remote_protocol.messages import JobKind, Offer, Stop

from airflow_remote_worker.jobs.supervisor import Supervisor
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.triggers.keeper import TriggerKeeper


class Router:
    """Receives the poll loop's decisions."""

    def __init__(self, supervisor: Supervisor, triggers: TriggerKeeper) -> None:
        self._supervisor = supervisor
        self._triggers = triggers

    def take(self, offer: Offer) -> None:
        """Take *offer*. Raises: OSError, ValueError if it can't be stored."""
        if offer.kind is JobKind.TRIGGER:
            self._triggers.take(offer)
        else:
            self._supervisor.take(offer)

    def stop(self, stop: Stop) -> None:
        # A lease belongs to one of the two; the other ignores it.
        self._supervisor.stop(stop)
        self._triggers.stop(stop)

    def supersede(self, lease: Lease) -> None:
        self._supervisor.supersede(lease)
        self._triggers.supersede(lease)
