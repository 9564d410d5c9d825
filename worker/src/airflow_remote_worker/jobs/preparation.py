"""Prepares a job before its start: decodes its workload and finds its code on this machine."""

from __future__ import annotations

import secrets

from airflow_remote_protocol.codec import Malformed, decode
from airflow_remote_protocol.messages import (
    CallbackWorkload,
    ConnectionTestWorkload,
    JobKind,
    Offer,
    TaskWorkload,
    TriggerWorkload,
)

from airflow_remote_worker.code import local
from airflow_remote_worker.code.local import LocalCode
from airflow_remote_worker.jobs.daemon_thread import run_in_daemon_thread
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.local import job_files

WORKLOADS: dict[JobKind, type[TaskWorkload | CallbackWorkload | ConnectionTestWorkload | TriggerWorkload]] = {
    JobKind.TASK: TaskWorkload,
    JobKind.CALLBACK: CallbackWorkload,
    JobKind.CONNECTION_TEST: ConnectionTestWorkload,
    JobKind.TRIGGER: TriggerWorkload,
}
PREPARE_WITHIN_S = 60.0
"""A lookup of a file that takes longer does not return: the network drive is unreachable."""


class Unprepared(Exception):
    """The job can't start here. The text goes into its log and names the cause and the remedy."""


async def prepare(job: Job, site: Site, *, contact_at: float) -> job_files.JobSpec:
    """Return the specification for the job's shim. *contact_at*: the last contact with central, on the machine's monotonic clock.

    Raises:
        Unprepared: the workload can't be read, or its bundle isn't on this machine.
    """
    code = await locate_code(job.offer, site)
    job.site_code, job.code_note = code.differs_as, code.note
    return job_files.JobSpec(
        job_id=job.lease.job_id,
        key=secrets.token_hex(32),
        socket_path=str(site.socket_path),
        worker_name=site.worker_name,
        queue=job.offer.queue,
        workload=job.offer.workload,
        bundle_path=code.path,
        site_code=code.differs_as,
        code_note=code.note,
        kind=job.offer.kind.value,
        stop_after_s=job.offer.stop_after_s,
        contact_at=contact_at,
        contact_path=str(site.contact_path),
        run_as_user=site.config.user_of(job.offer.queue),
        body_bytes=site.body_bytes(),
    )


async def locate_code(offer: Offer, site: Site) -> LocalCode:
    """Return the job's code on this machine.

    Raises:
        Unprepared: the workload can't be read, or its bundle isn't on this machine.
    """
    try:
        # In a thread of its own: if the drive with the Dags doesn't answer, only this job waits.
        name = f"look for the code of {offer.job_id}"
        return await run_in_daemon_thread(lambda: find_code(offer, site), within_s=PREPARE_WITHIN_S, name=name)
    except TimeoutError:
        places = ", ".join(sorted({str(bundle.path) for bundle in site.config.bundles.values()}))
        raise Unprepared(
            f"the worker {site.worker_name} got no answer from its disk within {PREPARE_WITHIN_S:.0f} s when it looked "
            f"for the Dag file ({places}); if that is a network drive, check that it is mounted and reachable"
        ) from None


def find_code(offer: Offer, site: Site) -> LocalCode:
    """Return the job's code on this machine.

    Raises:
        Unprepared: the workload can't be read, or its bundle isn't on this machine.
    """
    try:
        workload = decode(WORKLOADS[offer.kind], bytes(offer.workload))
    except Malformed as error:
        raise Unprepared(f"central sent a workload that this worker can't read ({error}); update the older of the two") from None
    if isinstance(workload, ConnectionTestWorkload):
        return LocalCode()
    code_hash = workload.code_hash if isinstance(workload, TaskWorkload) else ""
    try:
        return local.find(
            workload.bundle.name, workload.dag_rel_path, code_hash, config=site.config, worker_name=site.worker_name
        )
    except local.CodeMissing as error:
        raise Unprepared(str(error)) from None
