"""A central for tests: all of docs/protocol.md in memory, over real HTTP, with methods for administrators' actions and faults.

Owns the methods for tests. Decisions are in :mod:`.ledger`, routes in :mod:`.routes`, sockets in :mod:`.http_server`, the
Execution API in :mod:`.execution`. It passes :mod:`airflow_remote_protocol.conformance` as the real central does::

    with FakeCentral() as central:
        token = central.enrolment_token(["ships"])
        job_id = central.enqueue("ships")
        ...  # start a worker against central.url
        central.wait_for_state(job_id, JobState.SUCCEEDED)
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from airflow_remote_protocol.messages import (
    HeldRelease,
    HeldRuntime,
    IntentMode,
    JobKind,
    Runtime,
    RuntimeRef,
    StopReason,
    TaskSettings,
    TreeRef,
    Usage,
    WantedRelease,
)
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.task_settings import compute_revision

from airflow_remote_worker.testing.code import CodeStore
from airflow_remote_worker.testing.execution import TaskCalls
from airflow_remote_worker.testing.http_server import Faults, HttpServer, Proxy, Recorded
from airflow_remote_worker.testing.ledger import Job, Ledger, Worker, make_trigger_workload, make_workload
from airflow_remote_worker.testing.routes import Execution, Routes


@dataclass(frozen=True)
class Timing:
    """The durations that central sets; short enough for tests, long enough for a busy machine."""

    poll_s: float = 20.0
    retry_s: float = 0.2
    offer_deadline_s: float = 30.0
    redelivery_s: float = 5.0
    stop_after_s: float = 3300.0
    credential_s: float = 30 * 86400.0


BODY_BYTES = 4 * 1024 * 1024
"""The limit for a body of the Execution API."""


class FakeCentral:
    """A central on 127.0.0.1. All methods may be called from any thread.

    Args:
        execution: answers the tasks' calls; the default is :class:`TaskCalls`, also at :attr:`tasks`.
        timing: the durations that central sends to workers and uses itself.
        sub_path: the path of central below the host, such as `/airflow`.
    """

    def __init__(self, execution: Execution | None = None, *, timing: Timing = Timing(), sub_path: str = "") -> None:
        self.tasks = TaskCalls()
        self._sub_path = sub_path
        self._ledger = Ledger(
            offer_deadline_s=timing.offer_deadline_s,
            redelivery_s=timing.redelivery_s,
            stop_after_s=timing.stop_after_s,
            credential_s=timing.credential_s,
        )
        self.code = CodeStore()
        """Published code, and faults of its transfer."""
        self._routes = Routes(
            self._ledger, self.code, execution or self.tasks, poll_s=timing.poll_s, retry_s=timing.retry_s, body_bytes=BODY_BYTES
        )
        self._faults = Faults()
        self._http = HttpServer(self._routes.answer, self._faults, prefix=f"{sub_path}/remote/v1/")

    def __enter__(self) -> FakeCentral:
        self._http.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.stop()

    @property
    def url(self) -> str:
        """Central's URL as configured in a worker: without `/remote/v1`."""
        return f"http://127.0.0.1:{self._http.port}{self._sub_path}"

    # Actions of administrators, users and the scheduler

    def set_task_settings(self, values: Mapping[str, str]) -> None:
        """Set the settings for tasks, by `section.option`, as if central had been reconfigured and restarted."""
        with self._ledger.changed:
            self._ledger.task_settings = TaskSettings(compute_revision(values), dict(values))

    def enrolment_token(self, queues: Sequence[str], *, name_pattern: str = "*", uses: int = 1, expires_s: float = 3600.0) -> str:
        with self._ledger.changed:
            return self._ledger.issue_token(queues, name_pattern=name_pattern, uses=uses, expires_s=expires_s)

    def enqueue(
        self,
        queue: str,
        *,
        slots: int = 1,
        priority: int = 1,
        workload: dict[str, Any] | None = None,
        kind: JobKind = JobKind.TASK,
        tree: TreeRef | None = None,
    ) -> str:
        """Queue a job and return its id; *workload* replaces top-level fields of a made-up `TaskWorkload`."""
        made = make_trigger_workload(workload) if kind is JobKind.TRIGGER else make_workload(workload)
        job = Job(str(uuid.uuid4()), queue, slots, priority, made, kind, tree)
        with self._ledger.changed:
            self._ledger.enqueue(job)
        return job.job_id

    def publish(self, files: Mapping[str, bytes]) -> str:
        """Store a tree with these contents by path, as a publisher does; return its digest."""
        return self.code.publish(files).digest

    def run_tree(self, job_id: str, digest: str) -> None:
        """Let an open job run a tree, as if its offer had named it."""
        with self._ledger.changed:
            self.job(job_id).tree = self.code.ref(digest)

    def roll_runtime(self, queue: str, files: Mapping[str, bytes]) -> str:
        """Build the next runtime of *queue*, and roll it to all workers; return its tree's digest."""
        return self.roll(queue, self.code.publish(files), f"of-{queue}").tree.digest

    def roll(self, queue: str, tree: TreeRef, name: str = "default") -> RuntimeRef:
        """Make a tree the next serial of the runtime *name*, which *queue* uses from now on."""
        with self._ledger.changed:
            ref = self._ledger.runtimes.roll(queue, tree, name)
            self._ledger.changed.notify_all()
        return ref

    def roll_back(self, name: str = "default") -> RuntimeRef:
        """Make the tree of the serial before the next serial of *name*."""
        with self._ledger.changed:
            ref = self._ledger.runtimes.roll_back(name)
            self._ledger.changed.notify_all()
        return ref

    def release(self, tree: TreeRef, version: str = "0.2.0") -> WantedRelease:
        """Make a tree the next release of the worker's own software, and roll it out to all workers."""
        with self._ledger.changed:
            wanted = self._ledger.releases.roll(tree, version)
            self._ledger.changed.notify_all()
        return wanted

    def roll_release(self, files: Mapping[str, bytes]) -> str:
        """Roll a release with these files out to all workers; return its tree's digest."""
        return self.release(self.code.publish(files)).tree.digest

    def withdraw_release(self) -> None:
        """Name no release to any worker until the next one."""
        with self._ledger.changed:
            self._ledger.releases.is_withdrawn = True
            self._ledger.changed.notify_all()

    def defer(self, queue: str) -> str:
        """Add a deferred task of *queue*; return the id of its trigger's job."""
        job_id = self.enqueue(queue, kind=JobKind.TRIGGER)
        with self._ledger.changed:
            self.tasks.states[self.job(job_id).ti_id] = ["running", "deferred"]
        return job_id

    def task_state(self, job_id: str) -> str:
        """Return the state of the task that deferred for this trigger, including the effect of the trigger's end."""
        with self._ledger.changed:
            job = self.job(job_id)
            if job.event is not None:
                return job.event.state.value if job.event.state else "scheduled"
            return (self.tasks.states.get(job.ti_id) or ["deferred"])[-1]

    def end_task(self, job_id: str, *, reason: StopReason = StopReason.ENDED) -> None:
        """End the job as a user would; its worker receives a stop."""
        with self._ledger.changed:
            self._ledger.end(self.job(job_id), reason)

    def move_task_on(self, job_id: str) -> None:
        """Let the scheduler continue with a task that has reported its terminal state: it runs as another job now."""
        with self._ledger.changed:
            self.job(job_id).has_moved_on = True
            self.tasks.states[self.job(job_id).ti_id].append("running")

    def lose_job(self, job_id: str) -> None:
        """Declare the job lost, as if its worker had been silent for longer than `lost_after`."""
        with self._ledger.changed:
            self._ledger.lose(self.job(job_id))

    def pass_grace(self, job_id: str) -> None:
        """Let the time pass for which a running job may be missing from its worker's list."""
        with self._ledger.changed:
            self._ledger.lose_if_missing(self.job(job_id))

    def set_intent(self, worker_name: str, mode: IntentMode, *, slots: int | None = None, reason: str = "") -> None:
        with self._ledger.changed:
            self._ledger.set_intent(self.worker(worker_name), mode, slots=slots, reason=reason)

    def revoke_worker(self, worker_name: str) -> None:
        with self._ledger.changed:
            self._ledger.revoke_worker(self.worker(worker_name))

    def suspend_worker(self, worker_name: str) -> None:
        with self._ledger.changed:
            self._ledger.suspend_worker(self.worker(worker_name))

    def unsuspend_worker(self, worker_name: str) -> None:
        with self._ledger.changed:
            self._ledger.suspend_worker(self.worker(worker_name), is_suspended=False)

    def ask_to_restart(self, worker_name: str) -> None:
        with self._ledger.changed:
            self._ledger.ask_to_restart(self.worker(worker_name))

    def ask_to_rotate(self, worker_name: str) -> None:
        with self._ledger.changed:
            self._ledger.ask_to_rotate(self.worker(worker_name))

    def forget_next_credential(self, worker_name: str) -> None:
        """Lose the issued credential that is not used yet, as a database restored from a backup does."""
        with self._ledger.changed:
            self.worker(worker_name).next_credential = ""

    def is_flagged(self, worker_name: str) -> bool:
        worker = self.worker(worker_name)
        return bool(worker.clones_seen or worker.replays_seen)

    def ungranted_variable(self) -> str:
        """Create a variable that is granted to no job, and return its name."""
        name = f"ungranted-{uuid.uuid4().hex}"
        self.tasks.variables[name] = "not to be read"
        self.tasks.ungranted.add(name)
        return name

    # Time

    def pass_handover(self, worker_name: str) -> None:
        """Let the time pass for which a replaced credential is still accepted."""
        with self._ledger.changed:
            self.worker(worker_name).past_is_taken_until = 0.0

    def expire_credential(self, worker_name: str) -> None:
        """Expire the worker's current credential."""
        with self._ledger.changed:
            self.worker(worker_name).expires_at = 0.0

    def expire_offer(self, job_id: str) -> None:
        """Let the deadline of the job's offer pass."""
        with self._ledger.changed:
            self.job(job_id).deadline = time.monotonic()
            self._ledger.expire_offers()

    def skip_delay(self, job_id: str) -> None:
        """Let the delay before the job's next offer pass."""
        with self._ledger.changed:
            self.job(job_id).not_before = 0.0
            self._ledger.changed.notify_all()

    # Faults

    def go_down(self) -> None:
        """Stop listening and cut every connection. The state is kept."""
        self._http.stop()

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._http.start()

    def answer_like_a_proxy(self, status: int, body: bytes = b"<html>", headers: Mapping[str, str] | None = None) -> None:
        """Answer every further request without the marker header, until :meth:`answer_as_central`."""
        self._faults.proxy = Proxy(status, body, headers or {"content-type": "text/html"})

    def answer_as_central(self) -> None:
        self._faults.proxy = None

    def drop_next_reply(self, path_part: str) -> None:
        """Execute the next request with *path_part* in its path, then close the connection without an answer."""
        self._faults.drop_next_reply(path_part)

    # State and requests

    @property
    def requests(self) -> list[Recorded]:
        """Every request so far, in order of arrival."""
        return list(self._http.requests)

    def requests_to(self, path_part: str) -> list[Recorded]:
        return [request for request in self.requests if path_part in request.path]

    def job(self, job_id: str) -> Job:
        return self._ledger.jobs[job_id]

    def job_state(self, job_id: str) -> str:
        with self._ledger.changed:
            self._ledger.expire_offers()
            return self.job(job_id).state.value

    def job_epoch(self, job_id: str) -> int:
        return self.job(job_id).epoch

    def log_bytes(self, job_id: str) -> bytes:
        """Return the log of the job's last lease."""
        with self._ledger.changed:
            return bytes(self.job(job_id).log)

    def worker_log(self, worker_name: str) -> bytes:
        """Return the worker's own log."""
        with self._ledger.changed:
            return bytes(self.worker(worker_name).worker_log)

    def runtime(self, worker_name: str) -> Runtime | None:
        """Return the task runtime that the worker reported last."""
        with self._ledger.changed:
            return self.worker(worker_name).runtime

    def inventory(self, worker_name: str) -> list[str] | None:
        """Return the trees that the worker reported last."""
        with self._ledger.changed:
            return self.worker(worker_name).inventory

    def runtimes(self, worker_name: str) -> list[HeldRuntime]:
        """Return the runtimes from central that the worker reported last."""
        with self._ledger.changed:
            return self.worker(worker_name).runtimes

    def held_release(self, worker_name: str) -> HeldRelease | None:
        """Return what has become of the release that the worker should run, by its last report."""
        with self._ledger.changed:
            return self.worker(worker_name).release

    def running_release(self, worker_name: str) -> str:
        """Return the tree of the release that the worker runs, by its last report; empty: the installed one."""
        with self._ledger.changed:
            return self.worker(worker_name).running

    def usage(self, worker_name: str) -> Usage | None:
        """Return the usage that the worker reported last."""
        with self._ledger.changed:
            return self.worker(worker_name).usage

    def task_states(self, job_id: str) -> list[str]:
        """Return the states that the job's task set through the Execution API, oldest first."""
        return list(self.tasks.states.get(self.job(job_id).ti_id, []))

    def worker(self, name: str) -> Worker:
        """Return the newest worker of that name.

        Raises:
            LookupError: no worker of that name ever enrolled.
        """
        for worker in reversed(self._ledger.workers.values()):
            if worker.name == name:
                return worker
        raise LookupError(f"no worker named {name} has enrolled")

    def wait_for_state(self, job_id: str, *states: JobState, timeout_s: float = 10.0) -> None:
        """Wait until the job is in one of *states*.

        Raises:
            TimeoutError: with the states that the job went through.
        """
        self.wait_until(
            lambda: self.job(job_id).state in states,
            timeout_s=timeout_s,
            what=lambda: f"job {job_id} to be {' or '.join(states)}; it went through {', '.join(self.job(job_id).history)}",
        )

    def wait_until(
        self, is_so: Callable[[], bool], *, timeout_s: float = 10.0, what: Callable[[], str] = lambda: "the condition"
    ) -> None:
        """Wait until *is_so* returns true; it is called after every change of the ledger, and every 0.1 s.

        Raises:
            TimeoutError: names *what* was waited for.
        """
        deadline = time.monotonic() + timeout_s
        with self._ledger.changed:
            while not is_so():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"waited {timeout_s} s for {what()}")
                self._ledger.changed.wait(min(left_s, 0.1))  # 0.1: logs and requests change without a notification
