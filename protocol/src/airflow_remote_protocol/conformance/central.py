"""What a check is given: a central, and how fast that has to be.

Owns what a test harness must offer, and the durations that checks share. It refuses to own a transport: whoever runs the checks
brings one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_remote_protocol.messages import IntentMode, JobKind, Usage

PROMPT_S = 5.0
"""What "at once" allows. Central looks for ended tasks once a second; the rest is for a busy machine."""

REVOKED_S = 2.0
"""How long a revoked worker's open poll may live on."""

QUIET_S = 0.4
"""How long we listen before we believe that nothing comes."""

PARKED_S = 9.0
"""The wait of a poll that must be ended by something else. Well above PROMPT_S, to tell the two apart."""


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class CentralUnderTest(Protocol):
    """A central, and what only its test harness can do to it. It must allow polls of `PARKED_S`."""

    def request(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Ask `<central>/remote/v1/<path>` and wait for the answer. Called from several threads at once."""
        ...

    def enrolment_token(self, queues: Sequence[str], *, name_pattern: str = "*", uses: int = 1, expires_s: float = 3600.0) -> str:
        """Make a token. With `expires_s=0` it has expired by the time it is returned."""
        ...

    def enqueue(
        self,
        queue: str,
        *,
        slots: int = 1,
        priority: int = 1,
        workload: dict[str, Any] | None = None,
        kind: JobKind = JobKind.TASK,
    ) -> str:
        """Queue a job and return its id. Without a workload: a task that could run (`run` through the gateway succeeds)."""
        ...

    def defer(self, queue: str) -> str:
        """Let a task of *queue* defer; return the id of its trigger's job, which is queued."""
        ...

    def task_state(self, job_id: str) -> str:
        """Return the state of the task instance that the job is about, as Airflow spells it."""
        ...

    def end_task(self, job_id: str) -> None:
        """Set the task's state as a person would. Central may take a moment to notice."""
        ...

    def move_task_on(self, job_id: str) -> None:
        """Let the scheduler go on with a task that has said its terminal state: it is another job's by now, and runs."""
        ...

    def expire_offer(self, job_id: str) -> None:
        """Let the deadline of the job's offer pass; on return central has acted on it."""
        ...

    def lose_job(self, job_id: str) -> None:
        """Give a running job up, as if its worker had been silent for longer than the job allows."""
        ...

    def pass_grace(self, job_id: str) -> None:
        """Let the time pass for which a running job may be missing from what its worker lists; on return central has acted."""
        ...

    def skip_delay(self, job_id: str) -> None:
        """Let the delay pass that a declined or expired job has before its next offer."""
        ...

    def job_state(self, job_id: str) -> str: ...

    def job_epoch(self, job_id: str) -> int: ...

    def log_bytes(self, job_id: str) -> bytes:
        """Return the job's log as central holds it."""
        ...

    def worker_log(self, worker_name: str) -> bytes:
        """Return what the worker said of itself, as central holds it."""
        ...

    def usage(self, worker_name: str) -> Usage | None:
        """Return what the worker told last of what it uses."""
        ...

    def set_intent(self, worker_name: str, mode: IntentMode, *, slots: int | None = None) -> None: ...

    def revoke_worker(self, worker_name: str) -> None: ...

    def suspend_worker(self, worker_name: str) -> None: ...

    def unsuspend_worker(self, worker_name: str) -> None: ...

    def ask_to_restart(self, worker_name: str) -> None:
        """Want the worker's daemon started anew."""
        ...

    def ask_to_rotate(self, worker_name: str) -> None:
        """Want the worker's credential replaced now."""
        ...

    def pass_handover(self, worker_name: str) -> None:
        """Let the time pass for which a credential that was replaced is still taken."""
        ...

    def expire_credential(self, worker_name: str) -> None:
        """Let the life of the worker's present credential be over."""
        ...

    def ungranted_variable(self) -> str:
        """Return the name of a variable that nothing grants to any job."""
        ...

    def is_flagged(self, worker_name: str) -> bool:
        """Whether people are told to look at this worker."""
        ...
