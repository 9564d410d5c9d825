"""Prepares, starts, watches, stops and adopts jobs, from a taken offer to a stored outcome. Uses no network itself.

Each job has one asyncio task (:meth:`Supervisor._run_job`). Cancelling that task leaves the job running, to be adopted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
from airflow_remote_protocol.messages import (
    MAX_SHORT_TEXT,
    JobKind,
    JobPhase,
    Offer,
    Outcome,
    Report,
    Stop,
    StopReason,
)

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.logs import append_line
from airflow_remote_worker.jobs.preparation import Declined, Unprepared, prepare
from airflow_remote_worker.jobs.process import (
    CannotHost,
    StartUncertain,
    find_shim,
    is_alive,
    kill,
    record,
    terminate,
    wait_for_exit,
)
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.jobs.strays import end_strays
from airflow_remote_worker.jobs.verdict import describe_offer, judge
from airflow_remote_worker.lease import Lease, runtime_of
from airflow_remote_worker.local import frames, job_files
from airflow_remote_worker.session import WorkerSession
from airflow_remote_worker.state.free_space import NoRoom
from airflow_remote_worker.state.spool import JobDir, ShimRecord, Spool

log = logging.getLogger(__name__)

KILL_AFTER_S = 15.0
"""Between SIGTERM from outside and SIGKILL."""
HELLO_WITHIN_S = 10.0
"""A shim reconnects about every second (its heartbeat); one that has not connected by then does not run."""
LONGEST_NAP_S = 60.0
"""A sleep stops while the machine is suspended; our clock doesn't."""


class Starter(Protocol):
    """Starts shims in a runtime (a digest, or `SITE`). Implemented by the classes in :mod:`.runtimes`."""

    async def launch(self, job_dir: Path, *, runtime: str) -> ShimRecord: ...


class GatewayPort(Protocol):
    """The part of the gateway that the supervisor uses. The daemon connects the two."""

    def open(self, lease: Lease, key: str, job: Job) -> None: ...

    def stop(self, lease: Lease, stop: frames.Stop) -> None: ...

    def close(self, lease: Lease) -> None: ...


class Supervisor:
    """Keeps the jobs of this worker."""

    def __init__(
        self, *, site: Site, spool: Spool, session: WorkerSession, starter: Starter, gateway: GatewayPort, clock: Clock
    ) -> None:
        self.jobs: dict[Lease, Job] = {}
        self.on_held: list[Callable[[Job], None]] = []
        """Called with each job when it begins, by which the loops start to ship its log and to report it."""
        self.on_freed: Callable[[], None] = _do_nothing
        """Called when a job has ended and its slots are free."""
        self.on_outcome: Callable[[Job, Report, bool | None], None] = lambda job, report, begun: None
        """Called with a job, its report, and whether its own code had begun (None: the job says nothing about this machine)."""
        self.on_detail: Callable[[], None] = _do_nothing
        """Called when something else is done for a job that is prepared, or more of it."""
        self.on_declined: Callable[[Lease, str], None] = lambda lease, reason: None
        """Called when a job that was taken can't start here now, with the reason: its offer must be declined."""
        self.on_closed: Callable[[Job], None] = lambda job: None
        """Called when nothing remains to be sent for a job."""
        self._site = site
        self._spool = spool
        self._session = session
        self._starter = starter
        self._gateway = gateway
        self._clock = clock
        self._tasks: anyio.abc.TaskGroup | None = None

    # Called by the loops and the daemon

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of all jobs, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    def take(self, offer: Offer) -> None:
        """Store *offer* and begin the job.

        Raises:
            OSError, ValueError: it can't be stored; nothing has been started, and the caller must decline it.
        """
        lease = Lease(offer.job_id, offer.epoch)
        job_dir = self._spool.of(lease)
        try:
            self._site.check_room()
            job_dir.store_offer(offer)
        except OSError as error:
            self._site.note_failure(error)
            # One decline reports the cause to central. Until there is room, it need not offer jobs.
            self._session.no_room = str(error) if isinstance(error, NoRoom) else ""
            raise
        self._begin(Job(lease, offer, job_dir), self._run_job)

    def stop(self, stop: Stop) -> None:
        """Stop the job: now if it runs, else before it starts."""
        job = self.jobs.get(Lease(stop.job_id, stop.epoch))
        if job is None or job.stop is not None or job.ended.is_set():
            return
        log.info("job %s: stopping (%s) %s", job.lease, stop.reason.value, stop.detail)
        job.stop = stop
        self._session.move(job.lease, JobPhase.STOPPING)
        self._gateway.stop(job.lease, frames.Stop(reason=stop.reason.value, detail=stop.detail))
        job.stopped.set()

    def supersede(self, lease: Lease, detail: str = "central has given this job to someone else") -> None:
        """Give up a job whose lease is no longer ours: stop it if it runs, and drop what it has not sent yet."""
        if job := self.jobs.get(lease):
            self.stop(Stop(job_id=lease.job_id, epoch=lease.epoch, reason=StopReason.SUPERSEDED, detail=detail))
            job.superseded.set()

    def close(self, job: Job, how: str) -> None:
        """Close the job's directory, access and lease: nothing remains to be sent for it. *how*: how its report ended."""
        try:
            if job.declined:
                job.dir.remove()
            else:
                job.dir.close(how, self._clock.wall())
        except OSError as error:
            log.error(
                "job %s: its directory %s can't be closed (%s); it will be reported once more", job.lease, job.dir.path, error
            )
        self._gateway.close(job.lease)
        self._session.release(job.lease)
        if self._site.code:
            self._site.code.release(job.lease)
        self.jobs.pop(job.lease, None)
        job.closed.set()
        self.on_closed(job)

    def adopt(self) -> None:
        """Resume the jobs of an earlier daemon: watch live shims, report ended ones. Call it before a session is opened."""
        for job_dir in self._spool:
            try:
                self._adopt(job_dir)
            except Damaged as error:
                self._give_up(job_dir, error)
            except OSError as error:
                log.error("job %s: %s can't be read (%s); it is left alone", job_dir.lease, job_dir.path, error)

    # One job

    async def _run_job(self, job: Job) -> None:
        try:
            spec = await self._prepare(job)
            if spec is not None:
                job.dir.store_spec(spec)
                self._gateway.open(job.lease, spec.key, job)
                if job.code_source:
                    self._explain(job, job.code_source, level="info")
                if job.code_note:
                    self._explain(job, job.code_note, level="warning")
                if job.stop is None:
                    await self._start(job)
        except Declined as error:
            self._decline(job, str(error))
            return
        except (Unprepared, CannotHost, OSError) as error:
            if isinstance(error, OSError):
                self._site.note_failure(error)
            self._fail_to_start(job, str(error))
            return
        await self._watch(job)

    async def _prepare(self, job: Job) -> job_files.JobSpec | None:
        """Return the specification for the job's shim; None if the job was stopped before its code was here.

        Raises:
            Unprepared, Declined, OSError: it can't start.
        """
        prepared: list[job_files.JobSpec] = []
        failed: list[Exception] = []

        async def run() -> None:
            try:
                note = partial(self._note_detail, job)
                prepared.append(await prepare(job, self._site, contact_at=self._contact_at(), note=note))
            except (Unprepared, Declined, OSError) as error:
                failed.append(error)
            preparing.cancel_scope.cancel()

        async with anyio.create_task_group() as preparing:
            preparing.start_soon(run, name=f"preparation of {job.lease}")
            await job.stopped.wait()
            preparing.cancel_scope.cancel()
        if failed:
            raise failed[0]
        return prepared[0] if prepared else None

    def _note_detail(self, job: Job, detail: str) -> None:
        self._session.set_detail(job.lease, detail)
        self.on_detail()

    def _contact_at(self) -> float:
        last = self._session.last_contact
        return self._clock.monotonic() if last is None else last

    async def _start(self, job: Job) -> None:
        try:
            # If this daemon dies here, the next one finds job.json without shim.json and looks for the shim.
            shim = await self._starter.launch(job.dir.path, runtime=runtime_of(job.offer))
            job.dir.store_shim(shim)
        except StartUncertain as error:
            log.warning("job %s: %s; looking for it", job.lease, error)
            await self._find(job)
        else:
            job.shim = shim
            job.started.set()

    async def _find(self, job: Job) -> None:
        """Find a shim that may run unrecorded: by the log that it writes, or by its connection to the gateway."""
        shim = await anyio.to_thread.run_sync(find_shim, job.dir.shim_log)
        if shim:
            self.note_shim(job, shim)
        with anyio.move_on_after(HELLO_WITHIN_S):
            await job.started.wait()

    def note_shim(self, job: Job, shim: ShimRecord) -> None:
        """Store the process of a job that runs."""
        if job.shim is None and not job.ended.is_set():
            job.shim = shim
            job.dir.store_shim(shim)
            job.started.set()

    async def _watch(self, job: Job) -> None:
        """Wait until the shim has exited by itself or was ended by us, then store the outcome."""
        if shim := job.shim:
            async with anyio.create_task_group() as watching:
                watching.start_soon(self._stop_without_contact, job, name=f"contact of {job.lease}")
                watching.start_soon(self._escalate, job, shim, name=f"escalation of {job.lease}")
                await wait_for_exit(shim)
                watching.cancel_scope.cancel()
        if not job.dir.has_result():
            await self._end_strays(job)
        await self._conclude(job)

    async def _end_strays(self, job: Job) -> None:
        """End the processes of a job whose shim died and so didn't end them: a second copy of the job would run beside them."""
        if ended := await anyio.to_thread.run_sync(end_strays, job.dir.path.name, job.shim):
            self._explain(job, f"its supervisor (shim) had died; ended the processes that it left: {', '.join(ended)}")

    async def _stop_without_contact(self, job: Job) -> None:
        """Stop the job before central, which has no contact either, gives it to another worker: two copies must never run."""
        while (left_s := self._session.left_s(job.lease, self._clock.monotonic())) is not None:
            if left_s <= 0:
                detail = f"no contact with central for {job.offer.stop_after_s:.0f} s; it counts this job as lost by now"
                self.stop(Stop(job_id=job.lease.job_id, epoch=job.lease.epoch, reason=StopReason.SUPERSEDED, detail=detail))
                return
            await self._clock.sleep(min(left_s, LONGEST_NAP_S))

    async def _escalate(self, job: Job, shim: ShimRecord) -> None:
        await job.stopped.wait()
        await self._clock.sleep(self._site.config.stop_grace_s)
        log.warning("job %s: still alive %.0f s after its stop; SIGTERM", job.lease, self._site.config.stop_grace_s)
        terminate(shim)
        await self._clock.sleep(KILL_AFTER_S)
        log.warning("job %s: still alive; SIGKILL to it and all its children", job.lease)
        kill(shim)

    async def _conclude(self, job: Job) -> None:
        """Determine how the job ended and store its report."""
        job.report = job.report or job.dir.report()
        if job.report is None:
            judged = judge(job.dir, job.shim, job.stop)
            if judged.report.outcome is Outcome.DIED:
                log.error("job %s: %s", job.lease, judged.report.reason)
                self._explain(job, judged.report.reason)
            else:
                log.info("job %s: %s %s", job.lease, describe_offer(job.offer), judged.ending)
            self._settle(job, judged.report)
            self.on_outcome(job, judged.report, judged.begun)
        self._end(job)

    def _settle(self, job: Job, report: Report) -> None:
        if job.site_code:
            report = msgspec.structs.replace(report, site_code=job.site_code)
        job.report = report
        try:
            job.dir.store_report(report)
        except OSError as error:
            # The report is sent from memory. If this daemon ends first, the next one judges the same result again.
            self._site.note_failure(error)
            log.error("job %s: its report can't be stored (%s); it is sent from memory", job.lease, error)

    def _decline(self, job: Job, reason: str) -> None:
        """Return the job to central, which offers it to another worker, or again later. Nothing of it was run."""
        log.warning("job %s: declined: %s", job.lease, reason)
        job.declined = reason
        self._session.note_declined(job.lease)
        job.superseded.set()  # its log and its report are not sent
        try:
            self._site.check_room()
        except NoRoom as error:
            self._session.no_room = str(error)
        self._end(job)
        self.on_declined(job.lease, reason)

    def _fail_to_start(self, job: Job, reason: str) -> None:
        log.error("job %s: not started: %s", job.lease, reason)
        self._explain(job, reason)
        report = Report(outcome=Outcome.UNPREPARED, reason=reason[:MAX_SHORT_TEXT])
        self._settle(job, report)
        self.on_outcome(job, report, False)
        self._end(job)

    def _explain(self, job: Job, reason: str, *, level: str = "error") -> None:
        try:
            append_line(job.dir.task_log, reason, at=self._clock.wall(), level=level)
        except OSError as error:
            log.error("job %s: can't write to its log (%s): %s", job.lease, error, reason)

    def _end(self, job: Job) -> None:
        self._session.move(job.lease, JobPhase.ENDED)
        job.ended.set()
        job.started.set()
        self.on_freed()

    # After a restart

    def _adopt(self, job_dir: JobDir) -> None:
        if job_dir.closed():
            return
        job = Job(job_dir.lease, job_dir.offer(), job_dir, shim=job_dir.shim())
        spec = job_dir.spec()
        if job_dir.report():
            self._begin(job, self._conclude, JobPhase.ENDED)
        elif spec is None:
            # Never started. If its lease has ended meanwhile, its first call through the gateway is refused.
            self._begin(job, self._run_job)
        else:
            job.site_code = spec.site_code
            for tree in (spec.tree, spec.runtime, spec.release):
                if tree and self._site.code:
                    self._site.code.hold(job.lease, tree)
            self._gateway.open(job.lease, spec.key, job)
            # A job that may not have begun is listed as preparing, which keeps its offer.
            begun = job.shim is not None or job_dir.shim_log.exists() or job_dir.has_result()
            self._begin(job, self._resume, JobPhase.RUNNING if begun else JobPhase.PREPARING)

    def _give_up(self, job_dir: JobDir, error: Damaged) -> None:
        """End and report a job of which neither copy of its notes can be read. The name of its directory is enough for that.

        It can't go on: without the key its shim gets no access; without the offer its time limit is unknown, so two copies could
        run.
        """
        if not job_dir.has_started():
            where = self._spool.put_aside(job_dir)
            log.error("job %s: %s; it had not started, central will offer it again; moved to %s", job_dir.lease, error, where)
            return
        job = Job(job_dir.lease, _placeholder_offer(job_dir.lease), job_dir, shim=job_dir.shim())
        if job_dir.report() is None and not job_dir.has_result():
            job.shim = job.shim or find_shim(job_dir.shim_log)
            # Blocks the event loop, which serves no one yet: it must end before central learns of us and starts another copy.
            ended = end_strays(job_dir.path.name, job.shim)
            what = f"ended {', '.join(ended)}" if ended else "it was not running any more"
            reason = f"the worker's notes about this job are damaged ({error}), so it could not go on: {what}"
            self._explain(job, reason)
            self._settle(job, Report(outcome=Outcome.DIED, reason=reason[:MAX_SHORT_TEXT]))
        self._begin(job, self._conclude, JobPhase.ENDED)

    async def _resume(self, job: Job) -> None:
        if job.shim is None and not job.dir.has_result():
            await self._find(job)
            if job.shim is None and not job.dir.shim_log.exists():
                # A shim first opens its log. Without one, the earlier daemon ended while its zygote was still loading, which
                # takes seconds. If that is wrong, central lets only one of the two shims run the task.
                log.info("job %s: it had not begun; starting it", job.lease)
                await self._run_job(job)
                return
        elif job.shim and is_alive(job.shim):
            log.info("job %s: adopted, pid %d", job.lease, job.shim.pid)
        await self._watch(job)

    def _begin(self, job: Job, steps: Callable[[Job], Coroutine[Any, Any, None]], phase: JobPhase = JobPhase.PREPARING) -> None:
        assert self._tasks is not None, "the supervisor is not running"
        if not self._session.holds(job.lease):
            self._session.hold(job.offer, phase)
        self.jobs[job.lease] = job
        for notify in self.on_held:
            notify(job)
        self._tasks.start_soon(steps, job, name=f"job {job.lease}")


def make_shim_record(pid: int) -> ShimRecord:
    """Return the record of a shim that has just connected."""
    return record(frames.Spawned(job_dir="", pid=pid, start_time=0.0))


def _placeholder_offer(lease: Lease) -> Offer:
    """Return a placeholder for a lost offer: it holds the lease, and its other fields are not used."""
    return Offer(
        job_id=lease.job_id,
        epoch=lease.epoch,
        kind=JobKind.TASK,
        queue="",
        slots=1,
        deadline_s=30.0,
        stop_after_s=0.0,
        workload=msgspec.Raw(b"{}"),
    )


def _do_nothing() -> None:
    """The default listener."""
