"""The central under test, as the checks see it, and the time limits that they share.

Owns the interface of the test harness. It does not own a transport: the harness supplies one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_remote_protocol.messages import IntentMode, JobKind, Usage

PROMPT_S = 5.0
"""The limit for "at once". Central looks for ended tasks once a second; the rest is reserve for a busy machine."""

REVOKED_S = 2.0
"""How long a revoked worker's open poll may stay open."""

QUIET_S = 0.4
"""How long a check waits before it concludes that nothing is sent."""

PARKED_S = 9.0
"""The wait of a poll that must be ended by an event. Well above PROMPT_S, to distinguish the two."""


PLATFORM = "cp311-linux-gnu-x86_64"
"""Of the workers that take runtimes from central."""


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class CentralUnderTest(Protocol):
    """A central, and the actions that only its test harness can take. It must allow polls of `PARKED_S`."""

    def request(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Send a request to `<central>/remote/v1/<path>` and wait for the answer. Called from several threads at once."""
        ...

    def enrolment_token(self, queues: Sequence[str], *, name_pattern: str = "*", uses: int = 1, expires_s: float = 3600.0) -> str:
        """Create a token. With `expires_s=0` it has expired by the time it is returned."""
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
        """Queue a job and return its id. Without a workload: a task that can run (`run` through the gateway succeeds)."""
        ...

    def defer(self, queue: str) -> str:
        """Let a task of *queue* defer; return the id of its trigger's queued job."""
        ...

    def publish(self, files: Mapping[str, bytes]) -> str:
        """Store a tree with these contents by path, as a publisher does; return its digest."""
        ...

    def run_tree(self, job_id: str, digest: str) -> None:
        """Let an open job run a tree, as if its offer had named it."""
        ...

    def roll_runtime(self, queue: str, files: Mapping[str, bytes]) -> str:
        """Build the next runtime of *queue* for the platform `PLATFORM`, and roll it to all workers; return its tree's digest.

        All calls for one queue build serials of one name, which no other queue uses. *files*: the contents by path.
        """
        ...

    def roll_release(self, files: Mapping[str, bytes]) -> str:
        """Add a release of the worker for the platform `PLATFORM`, and roll it out to all workers; return its tree's digest."""
        ...

    def withdraw_release(self) -> None:
        """Let the release that is rolled out be named to no worker any more, as if its rollout were halted, and none before."""
        ...

    def task_state(self, job_id: str) -> str:
        """Return the state of the job's task instance, as Airflow names it."""
        ...

    def end_task(self, job_id: str) -> None:
        """Set the task's state as a user would. Central may take a moment to notice."""
        ...

    def move_task_on(self, job_id: str) -> None:
        """Let the scheduler go on with a task that has reported its end: it now belongs to another job, and runs."""
        ...

    def expire_offer(self, job_id: str) -> None:
        """Let the deadline of the job's offer pass. Return after central has acted on it."""
        ...

    def lose_job(self, job_id: str) -> None:
        """Make a running job lost, as if its worker had been silent for longer than the job allows."""
        ...

    def pass_grace(self, job_id: str) -> None:
        """Let the grace period of a running job that its worker does not list pass. Return after central has acted on it."""
        ...

    def skip_delay(self, job_id: str) -> None:
        """Let the delay before the next offer of a declined or expired job pass."""
        ...

    def job_state(self, job_id: str) -> str: ...

    def job_epoch(self, job_id: str) -> int: ...

    def log_bytes(self, job_id: str) -> bytes:
        """Return the job's log as central has it."""
        ...

    def worker_log(self, worker_name: str) -> bytes:
        """Return the worker's own log as central has it."""
        ...

    def usage(self, worker_name: str) -> Usage | None:
        """Return the usage that the worker reported last."""
        ...

    def set_intent(self, worker_name: str, mode: IntentMode, *, slots: int | None = None) -> None: ...

    def revoke_worker(self, worker_name: str) -> None: ...

    def suspend_worker(self, worker_name: str) -> None: ...

    def unsuspend_worker(self, worker_name: str) -> None: ...

    def ask_to_restart(self, worker_name: str) -> None:
        """Set the intent that the worker's daemon restarts."""
        ...

    def ask_to_rotate(self, worker_name: str) -> None:
        """Set the intent that the worker's credential is replaced now."""
        ...

    def pass_handover(self, worker_name: str) -> None:
        """Let the time pass in which a replaced credential is still accepted."""
        ...

    def expire_credential(self, worker_name: str) -> None:
        """Let the worker's present credential expire."""
        ...

    def ungranted_variable(self) -> str:
        """Return the name of a variable that is granted to no job."""
        ...

    def is_flagged(self, worker_name: str) -> bool:
        """Return whether the worker is flagged for administrators."""
        ...
